"""What a corpus is made of: its definition and formats, its sources, and their pictures."""
