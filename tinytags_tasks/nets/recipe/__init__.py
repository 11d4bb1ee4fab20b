"""How the net that ships was made: see README.md beside this file; nothing here is imported by the pipeline."""
