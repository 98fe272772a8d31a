"""Every layout in, ours out: see `load` for opening and `official` for the released names."""

from janusflow.checkpoint.load import Checkpoint, load_network, open_checkpoint, read_sizes
from janusflow.folders import TINY, find_folder, read_json

__all__ = ["TINY", "Checkpoint", "find_folder", "load_network", "open_checkpoint", "read_json", "read_sizes"]
