"""Review: draws pictures for people to look at, and estimates from what they say how often tags are right."""
