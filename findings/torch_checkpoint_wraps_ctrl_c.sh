#!/usr/bin/env bash
# torch 2.13.0: Ctrl-C while torch.distributed.checkpoint reads a checkpoint arrives as a CheckpointException, which also
# is no Exception. So `except Exception` does not catch a failed load, and `except CheckpointException`, which does, also
# catches Ctrl-C: a program that reports a damaged checkpoint there, or falls back to an older one, does so when its user
# only wanted it to stop. Here a storage reader raises KeyboardInterrupt in the middle of a load, as the signal does.
# A caller has to look for it among `error.failures`.
#
# Seen on 2026-11-29:
#   KeyboardInterrupt arrives as CheckpointException; is it an Exception: False; failures: [KeyboardInterrupt]
#   ValueError arrives as CheckpointException; is it an Exception: False; failures: [ValueError]
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet torch==2.13.0 numpy==2.4.6
cd "$folder"
"$folder/venv/bin/python" -W ignore - <<'PYTHON'
import torch
import torch.distributed.checkpoint as dcp
from torch.distributed.checkpoint.api import CheckpointException

dcp.save({"w": torch.ones(4)}, checkpoint_id="saved", no_dist=True)


def load(raised):
    class Reader(dcp.FileSystemReader):
        def read_data(self, plan, planner):
            raise raised

    try:
        dcp.load({"w": torch.zeros(4)}, storage_reader=Reader("saved"), no_dist=True)
    except BaseException as error:
        return error


for raised in (KeyboardInterrupt(), ValueError()):
    error = load(raised)
    inner = [type(one).__name__ for one, _ in error.failures.values()]
    print(
        f"{type(raised).__name__} arrives as {type(error).__name__}; is it an Exception: "
        f"{isinstance(error, Exception)}; failures: [{', '.join(inner)}]"
    )
    assert isinstance(error, CheckpointException) and not isinstance(error, Exception)
    assert inner == [type(raised).__name__]
PYTHON
