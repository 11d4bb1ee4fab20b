"""Indexing: turns scored blocks into documents of the run's collection; indexing again changes nothing."""
