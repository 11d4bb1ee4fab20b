"""The net that turns an image into an embedding, its card, its background, and the recipe that it is made by.

No stage uses it yet: models on embeddings come with the next version.
"""
