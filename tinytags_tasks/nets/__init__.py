"""Nets, which turn an image into an embedding: the one that ships, those in the store, and the graphs made of them."""
