"""Files of prompts for `janusflow generate --prompts`: read, checked whole, planned, and made as far as it is missing.

`manifest.jsonl` in the folder has a row for each picture, with its file, line, prompt, seed and settings. A picture
that is there and was made with these is not made again.
"""

from __future__ import annotations

import difflib
import json
import os
import re
import secrets
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from inspect import signature
from pathlib import Path
from typing import Any

from janusflow.arguments import whole_text
from janusflow.cli.pictures import Job, make, say, slug
from janusflow.files import checked, loads, write_text
from janusflow.generation import Sampling, choose_strength
from janusflow.janus import Janus
from janusflow.pipeline import JanusFlow
from janusflow.provenance import ALLOWED, input_digests, provenance_of
from janusflow.size import check_context, check_size
from janusflow.token_generation import TokenSampling

MANIFEST = "manifest.jsonl"
SAME_MODEL = ("digest", "dtype", "quantize", "sft_format")  # of a picture that counts as made already
SHORT = {
    "steps": "num_inference_steps",
    "guidance": "guidance_scale",
    "n": "num_images_per_prompt",
    "num_images": "num_images_per_prompt",
}
SEEDS = 2**32  # of which one is drawn where none is given
INPUTS = ("image", "mask")


@dataclass(frozen=True)
class Line:
    """One line of a file of prompts: its number, its prompt, how many pictures, from which seed if any, and how."""

    number: int
    prompt: str
    pictures: int | None
    seed: int | None
    settings: Mapping[str, Any]


def read_prompt_file(file: Path, known: Sequence[str]) -> list[Line]:
    """The lines of a text file (a prompt each) or of a .jsonl file (an object with `prompt` and settings each).

    Args:
        file: UTF-8; empty lines are left out.
        known: settings that the model takes.

    Raises:
        ValueError: naming the line, for what cannot be read or is not allowed.
    """
    try:
        text = file.expanduser().read_text(encoding="utf-8-sig")
    except FileNotFoundError as error:
        raise ValueError(f"--prompts {str(file)!r} does not exist") from error
    except (OSError, UnicodeDecodeError) as error:
        raise ValueError(f"--prompts {str(file)!r} cannot be read as UTF-8 text: {error}") from error
    objects = file.suffix.lower() in (".jsonl", ".ndjson", ".json")
    lines = []
    for number, line in enumerate(text.split("\n"), start=1):
        if not line.strip():
            continue
        try:
            lines.append(_read_object(number, line, known) if objects else Line(number, line.strip(), None, None, {}))
        except ValueError as error:
            raise ValueError(f"line {number} of {file}: {error}") from error
    if not lines:
        raise ValueError(f"--prompts {str(file)!r} holds no prompt")
    return lines


def _read_object(number: int, line: str, known: Sequence[str]) -> Line:
    try:
        row = loads(line)
    except ValueError as error:
        raise ValueError(f"it is not JSON ({error})") from error
    if not isinstance(row, dict) or not isinstance(row.get("prompt"), str) or not row["prompt"].strip():
        raise ValueError('expected an object with a prompt, such as {"prompt": "a red circle", "seed": 0}')
    given = {name: value for name, value in row.items() if value is not None and name != "prompt"}
    settings: dict[str, Any] = {SHORT.get(name, name): value for name, value in given.items()}
    settings |= _size(settings.pop("size", None))
    pictures = settings.pop("num_images_per_prompt", None)
    if pictures is not None and (type(pictures) is not int or pictures < 1):
        raise ValueError(f"n is {str(pictures)[:40]!r}; expected a whole number from 1 upwards")
    for name, value in settings.items():
        if name not in known or name not in ALLOWED or name == "prompts":
            names = [*(name for name in known if name in ALLOWED and name != "prompts"), *SHORT, "size"]
            near = difflib.get_close_matches(name, names, 1)
            hint = f"; did you mean {near[0]!r}?" if near else f"; known are {', '.join(dict.fromkeys(names))}"
            raise ValueError(f"it has an unknown setting {name[:40]!r}{hint}")
        holds, allowed = ALLOWED[name]
        if not holds(value):
            raise ValueError(f"{name} is {str(value)[:40]!r}; expected {allowed}")
    if "guidance_interval" in settings:
        settings["guidance_interval"] = tuple(settings["guidance_interval"])
    return Line(number, whole_text("prompt", row["prompt"].strip()), pictures, settings.pop("seed", None), settings)


def _size(value: Any) -> dict[str, int]:
    """{"height", "width"} of 512, "512x384" (width first) or [512, 384]."""
    if value is None:
        return {}
    sides = re.fullmatch(r"(\d{1,5})x(\d{1,5})", value) if isinstance(value, str) else None
    found = [int(side) for side in sides.groups()] if sides else [value] * 2 if type(value) is int else value
    if not isinstance(found, list) or len(found) != 2 or not all(type(side) is int for side in found):
        raise ValueError(f"size is {str(value)[:40]!r}; expected pixels, such as 512 or '512x384' (width x height)")
    return {"width": found[0], "height": found[1]}


def from_file(
    model: JanusFlow,
    file: Path,
    settings: Mapping[str, Any],
    out: Path,
    *,
    pictures: int,
    seed: int | None,
    batch_size: int,
) -> None:
    """Makes the pictures of a file of prompts that are not there yet.

    Args:
        model: makes them.
        file: see `read_prompt_file`.
        settings: where a line has none of its own.
        out: folder of the pictures and the manifest.
        pictures: of each prompt, where the line does not say.
        seed: of each prompt's first picture, where the line does not say; None draws one, which the manifest keeps.
        batch_size: pictures made at once.
    """
    lines = read_prompt_file(file, list(signature(model.generate).parameters))
    resolved = []
    for line in lines:
        try:
            resolved.append(_resolved(model, line.prompt, {**settings, **line.settings}))
        except ValueError as error:
            raise ValueError(f"line {line.number} of {file}: {error}") from error
    with _alone(out):
        made = _Made(model, out, settings)
        jobs, rows = _plan(lines, resolved, out, made, pictures, seed)
        write_text(out / MANIFEST, "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows))
        waiting = [job for job in jobs if not made.is_there(job)]
        for job, _ in make(model, sorted(waiting, key=lambda job: json.dumps(_plain(job.settings))), batch_size):
            say(job.file)
    print(f"{len(waiting)} pictures made, {len(jobs) - len(waiting)} were there; see {out / MANIFEST}", file=sys.stderr)


@contextmanager
def _alone(out: Path) -> Iterator[None]:
    """Holds a folder's manifest: the run that writes it last would forget the pictures of another one.

    The folder itself is locked, so nothing is left; where the system has no such locks, nothing is held.

    Raises:
        ValueError: if another process holds it.
    """
    try:
        import fcntl

        held = os.open(out, os.O_RDONLY)
    except (ImportError, OSError):  # Windows
        yield
        return
    try:
        try:
            fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise ValueError(
                f"another process is generating the pictures of a file of prompts in {out}; wait for its end, or give "
                "another --out FOLDER"
            ) from error
        except OSError:  # a file system without locks
            pass
        yield
    finally:
        os.close(held)


def _resolved(model: JanusFlow, prompt: str, settings: Mapping[str, Any]) -> dict[str, Any]:
    """The settings of a line with every default, checked before anything is made."""
    known = signature(model.generate).parameters
    kind = TokenSampling if isinstance(model, Janus) else Sampling
    names = [name for name in kind.__dataclass_fields__ if name in known]
    chosen = {name: known[name].default if settings.get(name) is None else settings[name] for name in names}
    _, visible = model.processor.encode_prompts([prompt])
    if isinstance(model, Janus):
        TokenSampling(**chosen)
        model.check_context(visible)
        return chosen
    image, mask = settings.get("image"), settings.get("mask")
    chosen["strength"] = choose_strength(chosen.get("strength"), image=image is not None, mask=mask is not None)
    Sampling(**chosen)
    config = model.network.config
    height, width = check_size(config, settings.get("height"), settings.get("width"), None)
    cell = config.latent_downscale * config.latent_patch_size
    check_context(config, visible, (height // cell) * (width // cell))
    if image is None:
        chosen.pop("strength")
    if mask is not None:
        pasted = settings.get("paste_original")
        chosen["paste_original"] = True if pasted is None else bool(pasted)
    return {**chosen, "height": height, "width": width, "image": image, "mask": mask}


@dataclass(frozen=True)
class _Row:
    """What is read of a row of the manifest."""

    file: str
    seed: int


class _Made:
    """What is in the folder already: the rows of its manifest, and how its pictures were made."""

    def __init__(self, model: JanusFlow, out: Path, settings: Mapping[str, Any]) -> None:
        self.identity = model.identity()
        self.inputs = {
            name: input_digests(name, settings[name])[0] for name in INPUTS if settings.get(name) is not None
        }
        self.rows: dict[str, list[dict[str, Any]]] = {}
        file = out / MANIFEST
        for text in file.read_bytes().splitlines() if file.is_file() else []:
            try:
                row = loads(text)
                found = asdict(checked(_Row, row, file))
                self.rows.setdefault(_planned(row), []).append(found)
            except ValueError:
                continue  # not a row of ours

    def take(self, planned: str, seed: int | None) -> dict[str, Any] | None:
        """The next row that was planned alike, with this seed if one is given."""
        rows = self.rows.get(planned, [])
        found = next((row for row in rows if seed is None or row["seed"] == seed), None)
        if found is not None:
            rows.remove(found)
        return found

    def is_there(self, job: Job) -> bool:
        """Whether a job's file holds the picture that it asks for."""
        try:
            found = provenance_of(job.file)
        except ValueError:
            return False
        wanted = {name: value for name, value in job.settings.items() if name not in INPUTS}
        return (
            found.settings == {"prompts": job.prompt, "seed": job.seed, **wanted}
            and found.inputs == self.inputs
            and all(found.model[name] == self.identity.get(name) for name in SAME_MODEL)
        )


def _plain(settings: Mapping[str, Any]) -> dict[str, Any]:
    return {name: str(value) if isinstance(value, Path) else value for name, value in settings.items()}


def _planned(row: Mapping[str, Any]) -> str:
    """A row without what may change from run to run: by this a seed that was drawn is found again."""
    kept = {name: value for name, value in row.items() if name not in ("file", "line", "seed")}
    return json.dumps(kept, sort_keys=True)


def _plan(
    lines: Sequence[Line], resolved: Sequence[dict[str, Any]], out: Path, made: _Made, pictures: int, seed: int | None
) -> tuple[list[Job], list[dict[str, Any]]]:
    """Every picture with its seed and file, and the rows of the manifest."""
    jobs: list[Job] = []
    rows: list[dict[str, Any]] = []
    taken: set[Path] = set()
    for line, settings in zip(lines, resolved, strict=True):
        first = line.seed if line.seed is not None else seed
        for number in range(line.pictures or pictures):
            given = None if first is None else first + number
            row = {"prompt": line.prompt, "picture": number, "drawn": given is None, **_plain(settings)}
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
    """The job with a file that no other picture has: never one that holds another picture."""
    stem = f"{line:05d}-{slug(job.prompt)}-{job.seed}"
    for number in range(1, 1 << 30):
        file = out / (f"{stem}.png" if number == 1 else f"{stem}-{number}.png")
        named = Job(job.prompt, job.seed, job.settings, file)
        if file not in taken and (not file.exists() or made.is_there(named)):
            return named
    raise AssertionError
