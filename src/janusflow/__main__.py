"""`python -m janusflow`, the command line without its script."""

from janusflow.cli import main

main()
