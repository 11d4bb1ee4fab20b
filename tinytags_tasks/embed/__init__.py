"""Embedding: turns shards into embeddings by a net, one file for each block."""
