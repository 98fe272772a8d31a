"""Scenes rendered per second on one core, at 64 pixels (bar: 3,000).

python benchmarks/rendering.py
"""

from __future__ import annotations

import time
from random import Random

from janusflow.tinyworld.captions import KINDS, sample_pair
from janusflow.tinyworld.checker import read
from janusflow.tinyworld.scenes import render


def main() -> None:
    """Print scenes per second: sampled at random, rendered, read back."""
    rng = Random(0)
    started = time.perf_counter()
    scenes = [sample_pair(rng, rng.choice(KINDS))[1] for _ in range(3000)]
    drawn = time.perf_counter()
    pictures = [render(scene) for scene in scenes]
    rendered = time.perf_counter()
    for picture in pictures[:500]:
        read(picture)
    read_back = time.perf_counter()
    print(f"sampled {3000 / (drawn - started):,.0f}/s, rendered {3000 / (rendered - drawn):,.0f}/s, ", end="")
    print(f"read back {500 / (read_back - rendered):,.0f}/s")


if __name__ == "__main__":
    main()
