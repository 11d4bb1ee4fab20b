"""Corpus formats: one file and one object per format. Only this package knows the pixel orders of sources."""
