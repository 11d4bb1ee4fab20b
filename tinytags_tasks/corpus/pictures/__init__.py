"""Encoded pictures are decoded to images of one size; images are drawn on sheets for people."""
