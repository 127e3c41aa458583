"""`python -m sensegate.cli` is `sensegate`."""

from sensegate.cli import main

main()
