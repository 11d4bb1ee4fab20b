"""Score: shards and a model become one file of tags and votes a block."""
