"""Where images come from: files on this machine, or at an address."""
