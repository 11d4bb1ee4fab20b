"""Where images come from: files of this machine, or behind an address."""
