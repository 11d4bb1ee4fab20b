"""Corpus formats: one reader a file, all alike. Pixel order is settled here, once."""
