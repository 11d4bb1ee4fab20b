"""Publish: when every count agrees, readers get the run's collection, in one step."""
