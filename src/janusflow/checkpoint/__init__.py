"""Open checkpoints in any layout (`load.py`, `layouts/`), write, convert and upload them."""

from janusflow.checkpoint.load import Checkpoint, load_network, open_checkpoint, read_sizes
from janusflow.folders import TINY, find_folder, read_json

__all__ = ["TINY", "Checkpoint", "find_folder", "load_network", "open_checkpoint", "read_json", "read_sizes"]
