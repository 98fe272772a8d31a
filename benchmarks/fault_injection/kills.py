"""Kills: commands that end at a random moment are run again, and must then have written what an unkilled run writes.

Each command runs in a forked process with a group of its own, through the command line's own entry point; only that
process is killed, so that its workers must end by themselves.
"""

from __future__ import annotations

import json
import multiprocessing
import multiprocessing.util
import os
import shutil
import signal
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Any

import yaml
from safetensors.torch import load_file

from fault_injection.cases import Outcome, end_group, in_child, wait_until
from fault_injection.checkpoints import digest, golden, write_vae
from fault_injection.records import pictures_with_captions
from fault_injection.runs import train_settings
from janusflow.cli import app

LEAST = 0.05  # seconds before a kill
STEPS = 4  # of a training run
LONG = 300.0  # seconds of wall time before a command counts as hanging


@dataclass(frozen=True)
class Command:
    """A command that can be killed.

    Attributes:
        words: its arguments, run in a folder that has `small-model`, `raw` and `train.yaml`.
        again: arguments that are added when it is run again.
        compare: what must be equal, from that folder.
        every: one kill in so many of its turns, as slow commands come less often.
    """

    words: tuple[str, ...]
    compare: Callable[[Path], Any]
    again: tuple[str, ...] = ()
    every: int = 1


def _training(folder: Path) -> Any:
    """Losses of all steps, and the exported weights."""
    rows = [json.loads(line) for line in (folder / "small-run" / "log.jsonl").read_text().splitlines()]
    weights = load_file(folder / "small-run" / "export" / "model.safetensors")
    return [[(row["step"], row["loss"]) for row in rows], {name: digest(value) for name, value in weights.items()}]


def _files(folder: Path, *, but: tuple[str, ...] = ()) -> Mapping[str, str]:
    """Digests of all files that a command has written."""
    return {
        str(file.relative_to(folder)): digest(file.read_bytes())
        for file in sorted((folder / "small-run").rglob("*"))
        if file.is_file() and file.name not in but
    }


def _evaluation(folder: Path) -> Any:
    """Scores, verdicts and pictures."""
    report = json.loads((folder / "small-run" / "report.json").read_text())
    pictures = {file.name: digest(file.read_bytes()) for file in sorted((folder / "small-run").rglob("*.png"))}
    lines = (folder / "small-run" / "results.jsonl").read_text().splitlines()
    return [report["items"], report["judged"], report["scores"], pictures, sorted(lines)]


EVALUATE = (
    *("eval", "tinyworld", "--out", "small-run", "--set", "prompts=1", "--set", "images=1", "--limit", "6"),
    *("--batch-size", "2", "--option", "num_inference_steps=4"),
)
COMMANDS: dict[str, Command] = {
    "train": Command(("train", "train.yaml"), _training, ("--resume",)),
    "train with a worker": Command(("train", "train.yaml", "data.workers=1"), _training, ("--resume",), every=4),
    "prepare": Command(
        ("data", "prepare", "raw", "--out", "small-run", "--min-side", "8", "--shard-size", "8"),
        lambda folder: _files(folder, but=("state.json",)),
    ),
    "convert": Command(("convert", "small-model", "small-run", "--to", "janusflow"), _files),
    "eval": Command(EVALUATE, _evaluation, every=2),
    "eval with workers": Command((*EVALUATE, "--workers", "2"), _evaluation, every=10),
}


@dataclass(frozen=True)
class Unkilled:
    """What a command gives that nobody kills: what is compared, the paths it leaves, and how long it takes."""

    result: Any
    paths: set[str]
    seconds: float


def run_kills(count: int, seed: int, work: Path, jobs: int) -> Iterator[Outcome]:
    """Kill that many runs; yields what became of each."""
    if not count:
        return
    place = work / "killed"
    made = in_child(lambda: _make(place / "base"), place / "making")
    if "error" in made:
        raise RuntimeError(f"what is killed cannot be made: {made['error']}")
    turns = [name for turn in range(count) for name, one in COMMANDS.items() if turn % one.every == 0][:count]
    whole = {name: _unkilled(name, place) for name in dict.fromkeys(turns)}
    with ProcessPoolExecutor(jobs, multiprocessing.get_context("fork")) as pool:
        found = [pool.submit(_kill, case, name, place, seed, whole[name]) for case, name in enumerate(turns)]
        for one in found:
            yield one.result()


def _make(folder: Path) -> None:
    golden("janusflow-small-a", folder)
    write_vae(folder / "small-model" / "vae")
    pictures_with_captions(folder / "raw", 48)
    (folder / "train.yaml").write_text(yaml.safe_dump(train_settings(STEPS)))


def _unkilled(name: str, place: Path) -> Unkilled:
    folder = shutil.copytree(place / "base", place / "whole" / "folder")
    started = time.monotonic()
    code, _ = _run(COMMANDS[name].words, folder)
    took = time.monotonic() - started
    if code:
        raise RuntimeError(f"{name} cannot be run: {_said(folder)}")
    found = Unkilled(COMMANDS[name].compare(folder), _paths(folder), took)
    shutil.rmtree(folder.parent)
    return found


def _kill(case: int, name: str, place: Path, seed: int, whole: Unkilled) -> Outcome:
    command, rng = COMMANDS[name], Random(f"{seed}/{case}")
    folder = shutil.copytree(place / "base", place / f"{case:04d}" / "folder")
    after = rng.uniform(LEAST, max(whole.seconds, 2 * LEAST))

    def outcome(verdict: str, message: str = "") -> Outcome:
        words = f"killed after {after:.2f} of {whole.seconds:.2f} s"
        return Outcome(case, f"kills: {name}", words, verdict, message)

    try:
        _, orphans = _run(command.words, folder, after)
        if orphans:
            return outcome("left behind", "processes outlive the killed one")
        converted = name == "convert" and (folder / "small-run").exists()  # complete when it exists, never done again
        if not converted:
            code, _ = _run((*command.words, *command.again), folder)
            if code is None:
                return outcome("too slow", f"killed after {LONG:g} s")
            if code:
                return outcome("traceback" if "Traceback" in _said(folder) else "cannot continue", _said(folder))
        if (found := command.compare(folder)) != whole.result:
            return outcome("silent difference", f"{found!r:.200}")
        if left := _paths(folder) - whole.paths:
            return outcome("left behind", ", ".join(sorted(left)[:3]))
        return outcome("same")
    except Exception as error:  # what the run wrote cannot be read
        return outcome("damaged", f"{type(error).__name__}: {error}")
    finally:
        shutil.rmtree(folder.parent, ignore_errors=True)


def _run(words: tuple[str, ...], folder: Path, after: float = LONG) -> tuple[int | None, bool]:
    """Run a command and kill it if it takes longer; its exit code, or None of a killed one, and whether processes
    of its group outlive it.
    """
    pid = os.fork()
    if pid == 0:
        _child(words, folder)
    ended = wait_until(pid, after)
    if not ended:
        os.kill(pid, signal.SIGKILL)
    _, status = os.waitpid(pid, 0)
    return os.WEXITSTATUS(status) if os.WIFEXITED(status) else None, end_group(pid)


def _child(words: tuple[str, ...], folder: Path) -> None:
    """Never returns."""
    code = 1
    try:
        os.setsid()
        os.chdir(folder)
        sys.modules["__main__"].__file__ = None  # workers would import this benchmark first; a command imports little
        said = os.open(folder.parent / "said", os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        os.dup2(said, 1)
        os.dup2(said, 2)
        (folder.parent / "tmp").mkdir(exist_ok=True)
        tempfile.tempdir = os.environ["TMPDIR"] = str(folder.parent / "tmp")
        sys.argv = ["janusflow", *words]
        try:
            app()
            code = 0
        except SystemExit as ended:
            code = ended.code if isinstance(ended.code, int) else int(ended.code is not None)
        except BaseException:
            traceback.print_exc()
        multiprocessing.util._exit_function()  # type: ignore[attr-defined]  # as an interpreter does when it ends
        sys.stdout.flush()
        sys.stderr.flush()
    finally:
        os._exit(code)


def _said(folder: Path) -> str:
    return (folder.parent / "said").read_text(errors="replace")[-500:]


def _paths(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*")}
