"""`python -m tinytags_tasks.cli`."""

from tinytags_tasks.cli import main

main()
