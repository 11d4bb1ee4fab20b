"""What turns an image into an embedding: the net that ships, its card and its background."""
