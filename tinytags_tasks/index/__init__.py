"""Index: scored blocks become documents of the run's collection, idempotently."""
