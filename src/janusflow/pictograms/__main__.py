"""`python -m janusflow.pictograms`."""

from janusflow.cli.streams import open_streams
from janusflow.pictograms.cli import app

if __name__ == "__main__":
    open_streams()
    app(prog_name="python -m janusflow.pictograms")
