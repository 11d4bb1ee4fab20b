"""Score: a model and the shards give one file of tags and votes for each block."""
