"""How nets are learned, and how the one that ships was made: see README.md; only `tinytags nets train` imports it."""
