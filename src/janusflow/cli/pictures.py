"""Generate the pictures of `janusflow generate` in batches. Each one is saved before its name is printed."""

from __future__ import annotations

import os
import re
import sys
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from inspect import signature
from itertools import groupby
from pathlib import Path
from typing import Any

from PIL import Image

from janusflow.pipelines.base import Pipeline
from janusflow.pipelines.procedures import Procedure
from janusflow.pipelines.provenance import Provenance, input_digests
from janusflow.pipelines.sheet import contact_sheet, save_new_png, save_png
from janusflow.progress import progress_bar

PROCEDURES = tuple(Procedure.__dataclass_fields__)
NAME_LENGTH = 40  # characters of a prompt in a file's name


@dataclass(frozen=True)
class Job:
    """One picture to generate.

    Attributes:
        prompt: prompt of the picture.
        seed: seed of its noise.
        settings: further arguments for `generate`.
        file: file to write.
        new: whether the file must be new; if the name is taken, the picture gets another one.
    """

    prompt: str
    seed: int
    settings: Mapping[str, Any]
    file: Path
    new: bool = False


def make(model: Pipeline, jobs: Sequence[Job], batch_size: int) -> Iterator[tuple[Job, Image.Image]]:
    """Generate pictures in batches with one progress bar; a batch is saved before its first picture is yielded."""
    batches = []
    for _, same in groupby(jobs, key=lambda job: job.settings):
        group = list(same)
        batches += [group[first : first + batch_size] for first in range(0, len(group), batch_size)]
    single = len(batches) == 1  # its own bar shows the steps
    with progress_bar("generating", len(jobs), shown=not single) as advance:
        for batch in batches:
            pictures = model.generate(
                [job.prompt for job in batch],
                seed=[job.seed for job in batch],
                batch_size=batch_size,
                progress=single,
                **batch[0].settings,
            )
            saved = [_saved(job, picture) for job, picture in zip(batch, pictures, strict=True)]
            for job, picture in zip(saved, pictures, strict=True):
                yield job, picture
                advance()


def _saved(job: Job, picture: Image.Image) -> Job:
    """Save the picture, and return the job with its file."""
    if job.new:
        return replace(job, file=save_new_png(picture, job.file, {}))
    save_png(picture, job.file, {})
    return job


def say(text: object) -> None:
    """Print a line; a closed pipe is ignored, because the pictures are saved."""
    try:
        print(text, flush=True)
    except BrokenPipeError:
        with suppress(OSError):  # a stream that is not a file
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def from_words(
    model: Pipeline, prompts: Sequence[str], seeds: Sequence[int], settings: Mapping[str, Any], out: Path, batch: int
) -> None:
    """Write PNG files under free names, and a contact sheet if there are several.

    Other processes may write to the same folder; no picture is overwritten.
    """
    first = 1 + max((int(m[1]) for file in out.iterdir() if (m := re.match(r"(\d+)-", file.name))), default=0)
    jobs = [
        Job(prompt, seed, settings, out / f"{number:03d}-{slug(prompt)}-{seed}.png", new=True)
        for number, (prompt, seed) in enumerate(zip(prompts, seeds, strict=True), start=first)
    ]
    pictures = []
    for job, picture in make(model, jobs, batch):
        say(job.file)
        pictures.append(picture)
    if len(pictures) > 1:
        labels = [f"{prompt} ({seed})" for prompt, seed in zip(prompts, seeds, strict=True)]
        given = {name: value for name, value in settings.items() if value is not None}
        say(save_new_png(contact_sheet(pictures, labels), out / f"{first:03d}-sheet.png", given))


def slug(prompt: str) -> str:
    """Turn a prompt into a part of a file name, with characters that the file system supports."""
    encoding = sys.getfilesystemencoding()
    known = prompt.lower().encode(encoding, "replace").decode(encoding)
    return re.sub(r"\W+", "-", known).strip("-")[:NAME_LENGTH].strip("-") or "picture"


def opening_of(made: Provenance) -> dict[str, Any]:
    """Return the arguments that open the model that generated a picture."""
    kept = {name: made.model[name] for name in ("vae", "dtype", "adapter", "quantize", "sft_format")}
    return {"model": made.model["name"], **kept}


def merged(before: Mapping[str, Any], given: Mapping[str, Any]) -> dict[str, Any]:
    """Return the given values, and those of `before` where none is given; best_of and redraw replace each other."""
    for one, other in (("best_of", "redraw"), ("redraw", "best_of")):
        if given.get(one) is not None and given.get(other) is None:
            before = {name: value for name, value in before.items() if name != other}
    return {**before, **{name: value for name, value in given.items() if value is not None or name not in before}}


def settings_for(model: Pipeline, asked: dict[str, Any]) -> dict[str, Any]:
    """Complete the settings that were given with the model's own defaults.

    Raises:
        ValueError: if the model does not take one of them: a Janus has no solver, a JanusFlow no temperature.
    """
    known = signature(model.generate).parameters
    refused = [name for name, value in asked.items() if value is not None and name not in known]
    if refused:
        options = {"num_inference_steps": "steps", "guidance_scale": "guidance"}
        options |= {"image_guidance_scale": "image-guidance"}
        named = ", ".join("--" + options.get(name, name).replace("_", "-") for name in refused)
        raise ValueError(f"{named}: not for a {type(model).__name__} model")
    given = {name: known[name].default if value is None else value for name, value in asked.items() if name in known}
    return {name: value for name, value in given.items() if name not in PROCEDURES or asked[name] is not None}


def check_again(model: Pipeline, made: Provenance, given: Mapping[str, Any], source: Path) -> None:
    """Warn if the model or the input pictures are not those that a picture was generated with.

    Raises:
        ValueError: if an input picture is not given.
    """
    for name, digest in made.inputs.items():
        if given.get(name) is None:
            raise ValueError(
                f"picture {str(source)!r} was generated from an {name} that it does not contain (digest {digest}); "
                f"give it again with --{name}"
            )
        if input_digests(name, given[name])[0] != digest:
            warnings.warn(f"--{name} {given[name]} is not the one that {source} was generated from", stacklevel=2)
    now = model.identity()
    if made.model.get("digest") != now["digest"]:
        warnings.warn(f"the weights are not those that generated {source}; the picture will be different", stacklevel=2)
    changed = [
        f"{name} {made.model[name]} (now {now[name]})"
        for name in ("dtype", "device", "sft_format")
        if made.model.get(name) not in (None, now[name])
    ]
    if changed:
        warnings.warn(f"{source} was generated with {', '.join(changed)}; the picture may be different", stacklevel=2)
