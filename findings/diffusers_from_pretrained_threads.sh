#!/usr/bin/env bash
# diffusers: `from_pretrained` in several threads leaves the whole process building modules on the meta device.
#
# Versions: diffusers 0.42.1, accelerate 1.15.0, torch 2.13.0, transformers 5.23 or none (2026-11-28).
# Input: one valid AutoencoderKL folder, opened 5 times by each of 8 threads. No call raises.
# Expected: afterwards `torch.nn.Linear(2, 2)` has its weight on the CPU.
# Seen: `torch.nn.Module.register_parameter` is still accelerate's `init_on_device.<locals>.register_empty_parameter`, and
#   every module built later, by any library, has parameters on the meta device: "Cannot copy out of meta tensor" or
#   "Tensor.item() cannot be called on meta tensors" far from the cause.
# Why: low_cpu_mem_usage (the default) builds under accelerate's `init_empty_weights`, which replaces
#   `nn.Module.register_parameter` and restores what it found when it began; overlapping threads restore a patched one.
# What to do: hold one lock around everything that builds modules (janusflow.building.BUILDING).
#
# Exits 0 while this is so (in one of ten tries at least), 1 if it has changed.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"
python3 -m venv env
env/bin/python -m pip install --quiet torch==2.13.0 diffusers==0.42.1 accelerate==1.15.0 numpy 2>/dev/null
cat > threads.py <<'PY'
import sys
import threading

import torch
from diffusers import AutoencoderKL

folder = sys.argv[1]
if len(sys.argv) > 2:
    AutoencoderKL(
        block_out_channels=(8, 8),
        down_block_types=("DownEncoderBlock2D",) * 2,
        up_block_types=("UpDecoderBlock2D",) * 2,
        norm_num_groups=4,
    ).save_pretrained(folder)
    sys.exit()
begin = threading.Barrier(8)


def work() -> None:
    begin.wait()
    for _ in range(5):
        AutoencoderKL.from_pretrained(folder)


threads = [threading.Thread(target=work) for _ in range(8)]
for thread in threads:
    thread.start()
for thread in threads:
    thread.join()
print(torch.nn.Module.register_parameter.__qualname__, torch.nn.Linear(2, 2).weight.device)
PY
export OMP_NUM_THREADS=1
env/bin/python threads.py vae make
for _ in 1 2 3 4 5 6 7 8 9 10; do
  seen=$(env/bin/python threads.py vae 2>/dev/null)
  echo "$seen"
  if [[ $seen == *register_empty_parameter*meta ]]; then
    exit 0
  fi
done
echo "modules are built on the CPU after loading in threads: the behaviour has changed"
exit 1
