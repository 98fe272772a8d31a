#!/usr/bin/env bash
# torch 2.13.0 with diffusers 0.42.1: the generator on a CPU reads only the lowest 32 bits of a seed, so interfaces that
# choose seeds of 64 bits (ComfyUI's go to 2^64 - 1) repeat noise.
#
# Behaviour: `manual_seed` takes any seed of 64 bits and `initial_seed` returns all of it, but s and s + 2^32 give the
# same numbers, and so the same latents in a diffusers pipeline. Counters or hashes in the upper bits ("batch number in
# bits 32 to 63") all give one picture, while the recorded seeds differ.
# Output seen:
#   initial_seed: 7 and 4294967303
#   same noise: True
#   2048 seeds k * 2^32: 1 noise
# What to do: mix the bits of a seed into 32 of them, or keep seeds below 2^32.
#
# Exits 0 while this is so, 1 if it has changed.
set -euo pipefail
place=$(mktemp -d)
trap 'rm -rf "$place"' EXIT
cat > "$place/run.py" <<'PYTHON'
import torch
from diffusers.utils.torch_utils import randn_tensor


def noise(seed):
    generator = torch.Generator("cpu").manual_seed(seed)
    return randn_tensor((1, 4, 8, 8), generator=generator), generator.initial_seed()


(one, first), (other, second) = noise(7), noise(7 + 2**32)
print(f"initial_seed: {first} and {second}")
print("same noise:", torch.equal(one, other))
different = {tuple(noise(number * 2**32)[0].flatten().tolist()) for number in range(2048)}
print(f"2048 seeds k * 2^32: {len(different)} noise")
PYTHON
"${PYTHON:-python3}" -m venv "$place/env"
"$place/env/bin/pip" install --quiet --disable-pip-version-check torch==2.13.0 diffusers==0.42.1 2>/dev/null
"$place/env/bin/python" "$place/run.py" 2>/dev/null | tee "$place/seen"
printf 'initial_seed: 7 and 4294967303\nsame noise: True\n2048 seeds k * 2^32: 1 noise\n' | diff - "$place/seen" > /dev/null || exit 1
