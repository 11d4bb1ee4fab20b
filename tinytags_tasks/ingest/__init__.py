"""Ingestion: turns a corpus' source into shards with manifests."""
