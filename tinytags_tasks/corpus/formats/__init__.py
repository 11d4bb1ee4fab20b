"""Corpus formats: one file a format, one object that says all of it. Pixel order is settled here, once."""
