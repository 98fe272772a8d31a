"""The loop that all training uses: steps, checkpoints, and a stop after saving when a signal asks for it."""

from __future__ import annotations

import math
import time
from collections.abc import Callable


def loop(
    first: int,
    last: int,
    *,
    step: Callable[[int], None],
    save: Callable[[int], None],
    stopping: Callable[[], bool],
    every: int,
    seconds: float = math.inf,
    watch: Callable[[int], None] = lambda done: None,
) -> bool:
    """Run the remaining steps.

    Args:
        first: number of steps already done.
        last: total number of steps.
        step: runs the step with this number, counted from 0.
        save: writes a checkpoint after this number of steps.
        stopping: returns whether to stop now, the same in all processes; a checkpoint is written first.
        every: steps between two checkpoints.
        seconds: most seconds between two checkpoints.
        watch: called after this number of steps, unless the run is stopped.

    Returns:
        Whether the last step was reached.
    """
    saved = time.monotonic()
    for number in range(first, last):
        step(number)
        done, stop = number + 1, stopping()
        if done % every == 0 or done == last or stop or time.monotonic() - saved >= seconds:
            save(done)
            saved = time.monotonic()
        if stop:
            return False
        watch(done)
    return True
