#!/usr/bin/env bash
# torch 2.13.0: an error that a file object raises while torch.save writes to it (here ENOSPC, "No space left on device")
# does not reach the caller: a RuntimeError about "unexpected pos" takes its place, and the error is only its __context__.
# After torch.distributed.checkpoint (DCP), which saves through a file object, even that is out of reach from the
# CheckpointException itself, whose __cause__ and __context__ are empty: only the entry in `failures` has it. The same
# happens to what a signal handler raises meanwhile, such as DataLoader's "worker (pid ...) is killed by signal": a
# program that looks for this message in the chain of causes does not find it, and reports a damaged file instead.
#
# Seen on 2026-12-01:
#   torch.save: RuntimeError "... unexpected pos ..."; cause: None; context: OSError 28
#   DCP: CheckpointException; cause: None; context: None; of its failure: OSError 28
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet torch==2.13.0 numpy==2.4.6
cd "$folder"
PYTHONWARNINGS=ignore venv/bin/python - <<'PYTHON'
import errno
import io
import re

import torch
import torch.distributed.checkpoint as dcp
from torch.distributed.checkpoint.api import CheckpointException

WRITES = 3  # the third write of a file fails


class Full:
    """A file on a disk that becomes full."""

    def __init__(self, file):
        self.file, self.writes = file, 0

    def __getattr__(self, name):
        return getattr(self.file, name)

    def write(self, content):
        self.writes += 1
        if self.writes == WRITES:
            raise OSError(errno.ENOSPC, "No space left on device")
        return self.file.write(content)


def said(error):
    return None if error is None else f"{type(error).__name__} {error.errno}"


try:
    torch.save({"a": torch.zeros(3)}, Full(io.BytesIO()))
except RuntimeError as error:
    assert re.search("unexpected pos", str(error)) and "No space" not in str(error), error
    print(f'torch.save: RuntimeError "... unexpected pos ..."; cause: {error.__cause__}; context: {said(error.__context__)}')
    assert error.__cause__ is None and isinstance(error.__context__, OSError)
else:
    raise SystemExit("torch.save raised no RuntimeError")

save = torch.save
torch.save = lambda content, file: save(content, Full(file))
try:
    dcp.save({"a": torch.zeros(3)}, checkpoint_id="checkpoint", no_dist=True)
except CheckpointException as error:
    (failure, _), = error.failures.values()
    assert "No space" not in str(failure)
    print(
        f"DCP: {type(error).__name__}; cause: {error.__cause__}; context: {error.__context__}; "
        f"of its failure: {said(failure.__context__)}"
    )
    assert error.__cause__ is None and error.__context__ is None and isinstance(failure.__context__, OSError)
else:
    raise SystemExit("dcp.save raised no CheckpointException")
PYTHON
