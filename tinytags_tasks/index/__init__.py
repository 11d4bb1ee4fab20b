"""Index: scored blocks become documents of the run's collection; indexing again changes nothing."""
