"""`tinytags doctor`: what would fail later, found before any work starts; each area of checks is a file here."""
