"""Run the command line with `python -m janusflow`, without its script."""

from janusflow.cli import main

main()
