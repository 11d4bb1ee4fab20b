"""Corrections and take-downs: makes a run's documents follow people's public words."""
