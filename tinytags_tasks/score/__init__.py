"""Scoring: turns embeddings or shards into tags and votes by a model, one file for each block."""
