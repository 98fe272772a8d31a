"""`python -m janusflow.cli`, which is what torchrun starts."""

from janusflow.cli import main

main()
