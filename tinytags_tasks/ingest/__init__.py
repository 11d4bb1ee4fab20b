"""Ingest: a source file becomes shards with manifests."""
