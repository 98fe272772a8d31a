"""The reports of a run: a progress bar, `log.jsonl`, TensorBoard or W&B, and sheets of pictures and answers."""

from __future__ import annotations

import hashlib
import logging
import math
from collections.abc import Sequence
from contextlib import ExitStack
from inspect import signature
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from janusflow.data.loader import StepSamples
from janusflow.offline import first_line
from janusflow.pipelines.janusflow import JanusFlow
from janusflow.pipelines.sheet import contact_sheet
from janusflow.progress import ProgressBar, say
from janusflow.training.card import percent
from janusflow.training.config import TrainConfig
from janusflow.training.curves import draw_curves
from janusflow.training.distributed import World
from janusflow.training.ema import Ema
from janusflow.training.export import averaged_model
from janusflow.training.log import append_row, begin_log
from janusflow.training.losses import terms
from janusflow.training.objective import Objective
from janusflow.training.resume import Progress

LARGE_SHARE = 0.1  # share of the starting weights in an export that gives a warning
CROPPED = 0.05  # mean share of a picture's area above which cropping is reported
NAMED = 5  # broken records named on the terminal per step


class Report:
    """The reports of one run, as a context manager. Processes other than the first report only broken records, each in
    its own file (`skipped-RANK.jsonl`).

    Args:
        first: number of steps already done; later rows of an earlier, killed run are dropped from the log.
        shown: whether to show the progress bar.
    """

    def __init__(self, out: Path, config: TrainConfig, world: World, *, first: int, shown: bool) -> None:
        self.out, self.config, self.world, self.first, self.shown = out, config, world, first, shown
        self.file = out / ("log.jsonl" if world.first else f"skipped-{world.rank}.jsonl")
        self._stack = ExitStack()
        self._writers: list[Any] = []
        self._galleries: list[Any] = []
        self._named: set[str] = set()

    def __enter__(self) -> Report:
        begin_log(self.file, self.first)
        if not self.world.first:
            return self
        bar = ProgressBar("step", self.config.steps, done=self.first, shown=self.shown, keep=True)
        self.bar = self._stack.enter_context(bar)
        if self.config.watch.tensorboard:
            try:
                from torch.utils.tensorboard import SummaryWriter
            except ImportError:
                self.say("TensorBoard is not installed: only log.jsonl is written")
            else:
                writer = SummaryWriter(str(self.out / "tensorboard"), purge_step=self.first + 1)
                self._stack.callback(writer.close)
                self._writers.append(writer.add_scalar)

                def show(sheet: Image.Image, answers: str, step: int) -> None:
                    writer.add_image("samples", np.asarray(sheet), step, dataformats="HWC")
                    writer.add_text("answers", answers.replace("\n", "  \n"), step)

                self._galleries.append(show)
        if self.config.watch.wandb:
            self._use_wandb()
        return self

    def __exit__(self, kind: type[BaseException] | None, *error: object) -> None:
        self._stack.close()
        if self.world.first and self.config.watch.curves and kind is not KeyboardInterrupt:
            self._draw_curves()

    def exported(self, progress: Progress) -> None:
        """Report the share of the starting weights in the exported weights, and warn if it is large."""
        share = progress.start_share
        if share is None:
            return
        text = f"{percent(share)} of the exported weights are still the starting weights"
        if share > LARGE_SHARE:
            text = f"warning: {text}: train longer, or give ema_warmup=true or a smaller ema than {self.config.ema:g}"
        self.say(text, logging.WARNING if share > LARGE_SHARE else logging.INFO)

    def _draw_curves(self) -> None:
        """Write `curves.png`; a failure is reported and does not end the run."""
        file = self.out / "curves.png"
        try:
            if draw_curves(self.file, file):
                self.say(f"curves: {file}")
        except ImportError:
            self.say('matplotlib is not installed, so curves.png is not drawn: pip install "janusflow[train]"')
        except (OSError, ValueError) as error:
            self.say(f"{file} could not be drawn: {error}", logging.WARNING)

    def step(self, losses: dict[str, float], found: StepSamples, *, waited: float, took: float) -> None:
        """Report one step: its named losses and samples, and the seconds spent waiting for data and in total."""
        step = found.step + 1
        if not self.world.first:
            self.skipped(step, found.broken, found.notes)
            return
        times = {"seconds": round(took, 4), "waited": round(waited, 4)}
        self.skipped(step, found.broken, found.notes, **losses, **times)
        if losses.get("cropped", 0) > CROPPED and "cropped" not in self._named:
            self._named.add("cropped")
            self.say(
                f"pictures to generate are cropped to squares, which leaves out {losses['cropped']:.0%} of their area "
                f"(mean of step {step}); crop=pad keeps them whole, with white bars"
            )
        shown = {**losses, "seconds": took, "waited": waited, "tokens_per_second": losses["tokens"] / took}
        for name, value in shown.items():
            for write in self._writers:
                write(name, value, step)
        means = " ".join(f"{name} {losses[name]:.3f}" for name in terms() if losses.get(name))
        rate = f"{losses['tokens'] / took:,.0f} tokens/s, {waited / took:.0%} waiting"
        self.bar.update(step, f"{means} | {rate}")

    def skipped(self, step: int, broken: list[str], notes: Sequence[tuple[str, str]] = (), **known: float) -> None:
        """Print the records that a step skipped, each once, and the first record of every note. The log contains all of
        them, and the other known values of the step.
        """
        for name, what in notes:
            if what not in self._named:
                self._named.add(what)
                say(f"step {step}: {name}: {what} (others like it are named in {self.file} only)")
        new = [problem for problem in dict.fromkeys(broken) if problem not in self._named]
        self._named.update(new)
        for problem in new[:NAMED]:
            say(f"step {step}: skipped: {problem}", logging.WARNING)
        if len(new) > NAMED:
            say(f"step {step}: skipped {len(new) - NAMED} more, named in {self.file}", logging.WARNING)
        finite = {name: value if math.isfinite(value) else None for name, value in known.items()}  # JSON has no others
        row = {"step": step, **finite, **({"broken": len(broken), "skipped": broken} if broken else {})}
        row |= {"notes": [f"{name}: {what}" for name, what in notes]} if notes else {}
        if len(row) > 1:
            append_row(self.file, row)

    def watch(self, step: int, objective: Objective, ema: Ema, model: JanusFlow) -> None:
        """Generate pictures and answers with the averaged weights: `samples/step-N.png` and `.txt`.

        A failure is reported and does not end the run, unless it comes while several processes gather the weights.
        """
        gathered = self.world.mesh is None
        try:
            averaged = averaged_model(objective, ema, model, self.world, self.config)
            gathered = True
            if averaged is not None:
                self._write_sheet(averaged, step)
        except Exception as error:  # too little memory, a full disk, a service that shows pictures
            if not gathered:
                raise
            self.say(f"the sheet of step {step} could not be made: {first_line(error)}", logging.WARNING)

    def _write_sheet(self, averaged: JanusFlow, step: int) -> None:
        watch = self.config.watch
        asked = {"guidance_scale": watch.guidance_scale, "num_inference_steps": watch.num_inference_steps}
        taken = signature(averaged.generate).parameters
        given: dict[str, Any] = {name: value for name, value in asked.items() if name in taken}
        pictures = averaged.generate(watch.prompts, seed=0, progress=False, **given)
        folder = self.out / "samples"
        folder.mkdir(exist_ok=True)
        sheet = contact_sheet(pictures, watch.prompts)
        sheet.save(folder / f"step-{step:07d}.png")
        answers = "\n".join(
            f"{question} {averaged.ask(question, pictures[-1], max_new_tokens=64)}" for question in watch.questions
        )
        (folder / f"step-{step:07d}.txt").write_text(answers + "\n", encoding="utf-8")
        for show in self._galleries:
            show(sheet, answers, step)

    def say(self, text: str, level: int = logging.INFO) -> None:
        """Print and log a line, once for all processes."""
        if self.world.first:
            say(text, level)

    def _use_wandb(self) -> None:
        try:
            import wandb
        except ImportError as error:
            raise ValueError("watch.wandb is set, but the package wandb is not installed") from error
        identity = hashlib.sha256(str(self.out.resolve()).encode()).hexdigest()[:16]  # the same when resumed
        run = wandb.init(project="janusflow", name=self.out.name, id=identity, dir=str(self.out), resume="allow")
        self._stack.callback(run.finish)
        self._writers.append(lambda name, value, step: run.log({name: value}, step=step))
        self._galleries.append(
            lambda sheet, answers, step: run.log({"samples": wandb.Image(sheet, caption=answers)}, step=step)
        )
