"""Fitting one part: batches that are functions of the step, updates, clipping, EMA, checkpoints, resume.

Everything random in a step must be a function of the step (`step_generator` is one), so that a killed run resumes as if
nothing had happened.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from pickle import UnpicklingError
from typing import Annotated, Literal, TypeVar, cast

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn.utils import clip_grad_norm_
from torch.optim import Optimizer
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from janusflow.data.constraints import NonNegativeFloat, NonNegativeInt, PositiveInt, Share
from janusflow.device import CPU, resolve_precision
from janusflow.files import first_cause, temporary_path
from janusflow.offline import first_line
from janusflow.progress import ProgressBar, say
from janusflow.training.config import OptimizerConfig
from janusflow.training.log import append_row, begin_log
from janusflow.training.loop import loop
from janusflow.training.optimizers import make_optimizers, set_rate, update
from janusflow.training.stop import caught_signals, leave

Losses = dict[str, Tensor]
Model = TypeVar("Model", bound=nn.Module)


@dataclass(frozen=True)
class FitConfig:
    """The settings for fitting a model.

    Attributes:
        steps: total number of optimizer steps.
        learning_rate: peak learning rate, after the warm-up.
        warmup: number of steps of linear warm-up.
        schedule: after the warm-up, "constant", "cosine" down to a hundredth of the peak at the last step, or "decay":
            constant, then linearly down to a hundredth over the last quarter of the steps.
        clip: largest norm of the gradient.
        weight_decay: weight decay of the optimizer, whose betas are the paper's (0.9, 0.95).
        ema: constant decay of the average of the weights, kept in float32.
        precision: "bfloat16" runs the matrix products of forward and backward in bfloat16 (autocast); "auto" does so
            where the device multiplies it fast.
        save_every: most steps between checkpoints.
        save_seconds: most seconds between checkpoints.
        optimizer: "adamw" or "muon", see `OptimizerConfig`.
    """

    steps: PositiveInt
    learning_rate: NonNegativeFloat
    warmup: NonNegativeInt = 100
    schedule: Literal["constant", "cosine", "decay"] = "cosine"
    clip: Annotated[float, Field(gt=0)] = 1.0
    weight_decay: NonNegativeFloat = 0.0
    ema: Share = 0.999
    precision: Literal["auto", "float32", "bfloat16"] = "auto"
    save_every: PositiveInt = 200
    save_seconds: NonNegativeFloat = 45.0
    optimizer: Literal["adamw", "muon"] = "adamw"

    def rate(self, step: int) -> float:
        """Return the learning rate of a step, counted from 0."""
        return self.updates().rate(step, self.steps)

    def updates(self) -> OptimizerConfig:
        """Return these settings for `make_optimizers`."""
        return OptimizerConfig(
            self.optimizer, self.learning_rate, self.warmup, self.schedule, weight_decay=self.weight_decay
        )


def step_generator(seed: int, step: int) -> torch.Generator:
    """Return the random generator of one step, a function of only seed and step."""
    return torch.Generator().manual_seed((seed * 1_000_003 + step) % 2**63)


def fit(model: Model, losses: Callable[[Model, int], Losses], config: FitConfig, folder: Path, *, title: str) -> Model:
    """Fit `model` and return its EMA; continue where an earlier, killed call with the same folder stopped.

    Args:
        model: float32 parameters; those without `requires_grad` stay as they are.
        losses: function from (model, step) to named terms; "loss" is minimized, the others are only shown.
        folder: folder for `state.pt` (everything needed to continue) and `log.jsonl`.

    Raises:
        ValueError: if the loss or its gradient is not finite (the last checkpoint stays), or the checkpoint is damaged
            or does not fit the model.
        OSError: if a checkpoint cannot be written; the last one stays.
        SystemExit, KeyboardInterrupt: at SIGTERM (with status 0) and at SIGINT, after saving.
    """
    parameters = [p for p in model.parameters() if p.requires_grad]
    optimizers = make_optimizers(model, config.updates(), precision=config.precision)
    average = AveragedModel(model, multi_avg_fn=get_ema_multi_avg_fn(config.ema))
    file, log = folder / "state.pt", folder / "log.jsonl"
    first = _resume(file, model, average, optimizers)
    begin_log(log, first - 1)
    bar = ProgressBar(title, config.steps, done=first, keep=True)

    def step(number: int) -> None:
        started = time.perf_counter()
        set_rate(optimizers, config.rate(number))
        terms = _update(model, losses, optimizers, parameters, number, config)
        average.update_parameters(model)
        row = {"step": number, **terms, "seconds": time.perf_counter() - started}
        append_row(log, {name: round(value, 6) for name, value in row.items()})
        bar.update(number + 1, f"{title} loss {terms['loss']:.4f}")

    def save(done: int) -> None:
        _save(file, done, model, average, optimizers)

    with bar, caught_signals() as caught:
        if not loop(
            first,
            config.steps,
            step=step,
            save=save,
            stopping=lambda: bool(caught),
            every=config.save_every,
            seconds=config.save_seconds,
        ):
            say(f"stopped: saved after step {bar.done}; the same command continues")
            leave(caught[0])
    return cast(Model, average.module.eval())


def _update(
    model: Model,
    losses: Callable[[Model, int], Losses],
    optimizers: Sequence[Optimizer],
    parameters: list[nn.Parameter],
    step: int,
    config: FitConfig,
) -> dict[str, float]:
    model.train()
    device = parameters[0].device
    half = resolve_precision(config.precision, device) == "bfloat16"
    with torch.autocast(device.type, torch.bfloat16, enabled=half):
        terms = losses(model, step)
    if not torch.isfinite(terms["loss"]):
        raise ValueError(f"the loss of step {step} is {terms['loss'].item()}; the last checkpoint is intact")
    model.zero_grad(set_to_none=True)
    terms["loss"].backward()
    norm = clip_grad_norm_(parameters, config.clip)
    if not torch.isfinite(norm):
        raise ValueError(f"the gradient of step {step} is {norm.item()}; the last checkpoint is intact")
    update(optimizers)
    return {**{name: value.item() for name, value in terms.items()}, "gradient": norm.item()}


def _save(file: Path, step: int, model: nn.Module, average: AveragedModel, optimizers: Sequence[Optimizer]) -> None:
    state = {
        "step": step,
        "model": model.state_dict(),
        "average": average.state_dict(),
        "optimizers": [optimizer.state_dict() for optimizer in optimizers],
    }
    with temporary_path(file) as temporary:
        try:
            with temporary.open("wb") as stream:  # given a path, PyTorch's writer does not say what is wrong
                torch.save(state, stream)
        except (RuntimeError, OSError) as error:  # a full disk
            fault = f"{file} could not be written ({first_line(first_cause(error))})"
            raise OSError(f"{fault}; the last checkpoint is intact") from error
        temporary.replace(file)


def _resume(file: Path, model: nn.Module, average: AveragedModel, optimizers: Sequence[Optimizer]) -> int:
    if not file.is_file():
        return 0
    try:
        state = torch.load(file, weights_only=True, map_location=CPU)
        model.load_state_dict(state["model"])
        average.load_state_dict(state["average"])
        for optimizer, values in zip(optimizers, state["optimizers"], strict=True):
            optimizer.load_state_dict(values)
        return int(state["step"])
    except (RuntimeError, UnpicklingError, EOFError, KeyError, TypeError, ValueError) as error:
        fault = f"{file} is damaged, or from another version ({first_line(error)})"
        raise ValueError(f"{fault}; without that file this part is trained from the beginning") from error
