"""What `janusflow generate` makes, batch by batch: each picture is saved before its name is printed."""

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
from janusflow.pipelines.provenance import Provenance, input_digests
from janusflow.pipelines.sheet import contact_sheet, save_new_png, save_png
from janusflow.progress import progress_bar

NAME_LENGTH = 40  # characters of a prompt in a file's name


@dataclass(frozen=True)
class Job:
    """One picture to make.

    Attributes:
        prompt: what it shows.
        seed: of its noise.
        settings: further arguments of `generate`.
        file: where it goes.
        new: whether the file must be a new one; if the name is taken, the picture gets another.
    """

    prompt: str
    seed: int
    settings: Mapping[str, Any]
    file: Path
    new: bool = False


def make(model: Pipeline, jobs: Sequence[Job], batch_size: int) -> Iterator[tuple[Job, Image.Image]]:
    """Makes the pictures batch by batch, with one bar for all, and saves those of a batch before any is given back."""
    batches = []
    for _, same in groupby(jobs, key=lambda job: job.settings):
        group = list(same)
        batches += [group[first : first + batch_size] for first in range(0, len(group), batch_size)]
    alone = len(batches) == 1  # whose own bar shows the steps
    with progress_bar("generating", len(jobs), shown=not alone) as advance:
        for batch in batches:
            pictures = model.generate(
                [job.prompt for job in batch],
                seed=[job.seed for job in batch],
                batch_size=batch_size,
                progress=alone,
                **batch[0].settings,
            )
            saved = [_saved(job, picture) for job, picture in zip(batch, pictures, strict=True)]
            for job, picture in zip(saved, pictures, strict=True):
                yield job, picture
                advance()


def _saved(job: Job, picture: Image.Image) -> Job:
    """The job with the file that its picture is in."""
    if job.new:
        return replace(job, file=save_new_png(picture, job.file, {}))
    save_png(picture, job.file, {})
    return job


def say(text: object) -> None:
    """Prints a line; if nobody reads any more, nothing is lost by that."""
    try:
        print(text, flush=True)
    except BrokenPipeError:
        with suppress(OSError):  # a stream of its own that is no file
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def from_words(
    model: Pipeline, prompts: Sequence[str], seeds: Sequence[int], settings: Mapping[str, Any], out: Path, batch: int
) -> None:
    """PNG files under names that are still free, and a contact sheet if there are several.

    Other processes may write to the same folder at the same time: none replaces another's pictures.
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
    """A prompt as a part of a file's name, of characters that the system has in names."""
    encoding = sys.getfilesystemencoding()
    known = prompt.lower().encode(encoding, "replace").decode(encoding)
    return re.sub(r"\W+", "-", known).strip("-")[:NAME_LENGTH].strip("-") or "picture"


def opening_of(made: Provenance) -> dict[str, Any]:
    """How to open the model that made a picture."""
    told = made.model
    kept = {name: told[name] for name in ("vae", "dtype", "adapter", "quantize", "sft_format")}
    return {"model": told["name"], **kept}


def merged(before: Mapping[str, Any], given: Mapping[str, Any]) -> dict[str, Any]:
    """What is given, and what was before where nothing is."""
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
        named = ", ".join("--" + options.get(name, name).replace("_", "-") for name in refused)
        raise ValueError(f"{named}: not for a {type(model).__name__} model")
    return {name: known[name].default if value is None else value for name, value in asked.items() if name in known}


def check_again(model: Pipeline, made: Provenance, given: Mapping[str, Any], source: Path) -> None:
    """Whether the model and the pictures that are given are those that a picture was made with.

    Raises:
        ValueError: if a picture that it began with is not given.
    """
    for name, digest in made.inputs.items():
        if given.get(name) is None:
            raise ValueError(
                f"picture {str(source)!r} was made from an {name} that is not in it (digest {digest}); give that again "
                f"with --{name}"
            )
        if input_digests(name, given[name])[0] != digest:
            warnings.warn(f"--{name} {given[name]} is not the one that {source} was made from", stacklevel=2)
    now = model.identity()
    if made.model.get("digest") != now["digest"]:
        warnings.warn(f"the weights are not those that made {source}; the picture will be another one", stacklevel=2)
    changed = [
        f"{name} {made.model[name]} (now {now[name]})"
        for name in ("dtype", "device", "sft_format")
        if made.model.get(name) not in (None, now[name])
    ]
    if changed:
        warnings.warn(f"{source} was made with {', '.join(changed)}; the picture may differ", stacklevel=2)
