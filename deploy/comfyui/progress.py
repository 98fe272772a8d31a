"""ComfyUI's progress bar and "Cancel" button while a node runs; without ComfyUI, both have no effect."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Any

from torch import Tensor


def check_interrupt() -> None:
    """Raise ComfyUI's exception if its user has pressed "Cancel"."""
    with suppress(ImportError):
        from comfy.model_management import throw_exception_if_processing_interrupted

        throw_exception_if_processing_interrupted()


def progress_bar(total: int) -> Callable[[int], None]:
    """Return a function that shows how many of `total` steps are done, in ComfyUI's page if there is one."""
    try:
        from comfy.utils import ProgressBar
    except ImportError:
        return lambda done: None
    bar = ProgressBar(total)
    return lambda done: bar.update_absolute(done, total)


def step_callback(steps: int) -> Callable[[Any, int, float, Mapping[str, Tensor]], None]:
    """Return a `callback_on_step_end` that shows the progress and stops the generation when it is cancelled."""
    show = progress_bar(steps)

    def after_step(model: Any, step: int, t: float, tensors: Mapping[str, Tensor]) -> None:
        show(step + 1)
        check_interrupt()

    return after_step
