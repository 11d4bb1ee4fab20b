"""Solr -> pages and API: what readers see."""
