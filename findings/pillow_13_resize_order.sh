#!/usr/bin/env bash
# Pillow 13: `Image.resize` gives other values than Pillow 12 for some changes of aspect, by up to 17 of 255 levels.
#
# Versions: Pillow 12.1.0 and 13.0.0, NumPy (2026-11-28).
# Input: a picture of random pixels, 300 x 400, resized to 384 x 288 (bicubic); and the same size to 64 x 64.
# Expected: the same values from both versions.
# Seen: 30 % of the values of the first differ, by up to 17 levels; the second is equal to the bit. Other sizes that differ:
#   480 x 640 to 384 x 288, 97 x 131 to 64 x 64; bilinear and Lanczos too. Pictures that keep their aspect differ rarely and
#   by one level.
# Why: the two passes (horizontal and vertical) run in another order, and the picture between them is rounded to 8 bits.
# What it means: pixel preprocessing of vision-language models (SigLIP, CLIP, Janus) depends on Pillow's version, and
#   golden pixels made with one version fail with the other.
# What to do: pin Pillow where pixels must agree (janusflow needs 13 or newer, which the official code's outputs match).
#
# Exits 0 while this is so, 1 if it has changed.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"
cat > resize.py <<'PY'
import sys

import numpy as np
from PIL import Image

pixels = np.random.default_rng(0).integers(0, 256, (400, 300, 3), dtype=np.uint8)
picture = Image.fromarray(pixels)
np.savez(
    sys.argv[1],
    aspect_changes=np.asarray(picture.resize((384, 288), Image.Resampling.BICUBIC)),
    square=np.asarray(picture.resize((64, 64), Image.Resampling.BICUBIC)),
)
PY
for version in 12.1.0 13.0.0; do
  python3 -m venv "env-$version"
  "env-$version/bin/python" -m pip install --quiet "pillow==$version" numpy 2>/dev/null
  "env-$version/bin/python" resize.py "$version.npz"
done
env-13.0.0/bin/python - <<'PY'
import sys

import numpy as np

old, new = np.load("12.1.0.npz"), np.load("13.0.0.npz")
apart = {name: np.abs(old[name].astype(int) - new[name].astype(int)) for name in old.files}
for name, values in apart.items():
    print(f"{name}: {(values > 0).mean():.0%} of the values differ, by up to {values.max()} levels")
sys.exit(not (apart["aspect_changes"].max() > 5 and apart["square"].max() == 0))
PY
