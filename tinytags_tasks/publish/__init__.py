"""Publish: if the store and Solr hold what was scored, readers get the run's collection in one step."""
