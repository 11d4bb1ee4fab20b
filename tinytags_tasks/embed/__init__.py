"""Embed: a net and the shards give one file of embeddings for each block."""
