"""What is done with runs after they are published: audit, backfill, prune, re-tag, compare."""
