"""Encoded pictures become images of one size, and images become sheets to look at."""
