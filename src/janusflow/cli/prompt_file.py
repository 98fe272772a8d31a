"""Generate the pictures of `janusflow generate --prompts`: check the whole file, plan, and generate what is missing.

`manifest.jsonl` in the folder has a row for each requested picture, with its file, line, prompt, seed and settings. It
is written before the first picture. A picture that exists with the same settings is not generated again.
"""

from __future__ import annotations

import json
import secrets
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from inspect import signature
from pathlib import Path
from typing import Any

from janusflow.arguments import counted
from janusflow.cli.pictures import Job, make, say, slug
from janusflow.cli.prompt_lines import Line, read_lines
from janusflow.files import checked, loads, locked, write_text
from janusflow.pipelines.base import Pipeline
from janusflow.pipelines.procedures import Procedure
from janusflow.pipelines.provenance import input_digests, provenance_of

MANIFEST, LOCK = "manifest.jsonl", ".manifest.lock"
SAME_MODEL = ("digest", "dtype", "quantize", "sft_format")  # must be equal for a picture to count as generated
SEEDS = 2**32  # random seeds are below this
INPUTS = ("image", "mask")


def from_file(
    model: Pipeline,
    file: Path,
    texts: Sequence[tuple[int, str]],
    settings: Mapping[str, Any],
    out: Path,
    *,
    pictures: int,
    seed: int | None,
    batch_size: int,
) -> None:
    """Generate the missing pictures of a file of prompts.

    Args:
        file: file of prompts, for error messages and its format.
        texts: its lines; see `janusflow.cli.prompt_lines.lines_of`.
        settings: for lines without their own.
        out: folder of the pictures and the manifest.
        pictures: pictures per prompt, for lines without a number.
        seed: seed of each prompt's first picture, for lines without one; None is random, and the manifest keeps it.

    Raises:
        ValueError: if something is not allowed; names the line.
        KeyboardInterrupt: when the command is interrupted; says how many pictures are done.
    """
    lines = read_lines(file, texts, list(signature(model.generate).parameters))
    resolved = []
    for line in lines:
        try:
            given = {**settings, **line.settings}
            resolved.append(model.resolve(line.prompt, given) | Procedure.asked(given))
        except ValueError as error:
            raise ValueError(f"line {line.number} of {file}: {error}") from error
    busy = f"another process is generating the pictures of a file of prompts in {out}; wait, or give another --out"
    with locked(out / LOCK, busy):  # or the run that writes the manifest last would drop the pictures of another one
        made = _Made(model, out, settings)
        jobs, rows = _plan(lines, resolved, out, made, pictures, seed)
        write_text(out / MANIFEST, "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows))
        waiting = [job for job in jobs if not made.is_there(job)]
        before = len(jobs) - len(waiting)
        try:
            for job, _ in make(model, sorted(waiting, key=lambda job: json.dumps(_plain(job.settings))), batch_size):
                say(job.file)
        except KeyboardInterrupt as stopped:
            done = before + sum(job.file.exists() for job in waiting)
            verb = "is" if len(jobs) == 1 else "are"
            raise KeyboardInterrupt(
                f"stopped: {done} of {counted(len(jobs), 'picture')} {verb} done; repeat the command to continue"
            ) from stopped
    print(f"{counted(len(waiting), 'picture')} generated, {before} existed; see {out / MANIFEST}", file=sys.stderr)


@dataclass(frozen=True)
class _Row:
    """Fields that are read from a row of the manifest."""

    file: str
    seed: int


class _Made:
    """What the folder contains: the rows of its manifest, and how its pictures were generated."""

    def __init__(self, model: Pipeline, out: Path, settings: Mapping[str, Any]) -> None:
        self.identity = model.identity()
        self.inputs = {
            name: input_digests(name, settings[name])[0] for name in INPUTS if settings.get(name) is not None
        }
        self.rows: dict[str, list[dict[str, Any]]] = {}
        file = out / MANIFEST
        for text in file.read_bytes().splitlines() if file.is_file() else []:
            try:
                row = loads(text)
                if isinstance(row, dict) and "drawn" in row:  # its name in manifests of earlier versions
                    row["random_seed"] = row.pop("drawn")
                found = asdict(checked(_Row, row, file))
                self.rows.setdefault(_planned(row), []).append(found)
            except ValueError:
                continue  # not a row of ours

    def take(self, planned: str, seed: int | None) -> dict[str, Any] | None:
        """Remove and return the next row with the same plan, and with this seed if one is given."""
        rows = self.rows.get(planned, [])
        found = next((row for row in rows if seed is None or row["seed"] == seed), None)
        if found is not None:
            rows.remove(found)
        return found

    def is_there(self, job: Job) -> bool:
        """Return whether a job's file contains the requested picture."""
        try:
            found = provenance_of(job.file)
        except ValueError:
            return False
        wanted = {name: value for name, value in job.settings.items() if name not in INPUTS}
        return (
            found.settings == {"prompts": job.prompt, "seed": job.seed, **wanted}
            and found.inputs == self.inputs
            and all(found.model[name] == self.identity.get(name) for name in SAME_MODEL)
            and not found.changed_by_callback
        )


def _plain(settings: Mapping[str, Any]) -> dict[str, Any]:
    return {name: str(value) if isinstance(value, Path) else value for name, value in settings.items()}


def _planned(row: Mapping[str, Any]) -> str:
    """Return a row without what may change from run to run, to find its random seed again."""
    kept = {name: value for name, value in row.items() if name not in ("file", "line", "seed")}
    return json.dumps(kept, sort_keys=True)


def _plan(
    lines: Sequence[Line], resolved: Sequence[dict[str, Any]], out: Path, made: _Made, pictures: int, seed: int | None
) -> tuple[list[Job], list[dict[str, Any]]]:
    """Return every picture with its seed and file, and the rows of the manifest."""
    jobs: list[Job] = []
    rows: list[dict[str, Any]] = []
    taken: set[Path] = set()
    for line, settings in zip(lines, resolved, strict=True):
        first = line.seed if line.seed is not None else seed
        for number in range(line.pictures or pictures):
            given = None if first is None else first + number
            row = {"prompt": line.prompt, "picture": number, "random_seed": given is None, **_plain(settings)}
            before = made.take(_planned(row), given)
            if given is None:
                given = before["seed"] if before else secrets.randbelow(SEEDS)
            job = Job(line.prompt, given, settings, out / (before["file"] if before else ""))
            kept = before is not None and job.file.parent == out and job.file not in taken
            if not kept or (job.file.exists() and not made.is_there(job)):
                job = _named(job, line.number, out, taken, made)
            taken.add(job.file)
            jobs.append(job)
            rows.append({"file": job.file.name, "line": line.number, "seed": given, **row})
    return jobs, rows


def _named(job: Job, line: int, out: Path, taken: set[Path], made: _Made) -> Job:
    """Return the job with a file name that no other picture uses."""
    stem = f"{line:05d}-{slug(job.prompt)}-{job.seed}"
    for number in range(1, 1 << 30):
        file = out / (f"{stem}.png" if number == 1 else f"{stem}-{number}.png")
        named = Job(job.prompt, job.seed, job.settings, file)
        if file not in taken and (not file.exists() or made.is_there(named)):
            return named
    raise AssertionError
