"""How a picture was made: stored in its `info` and in the text of its PNG, and read back with checked types.

picture = model.generate("a red circle")[0]  # no seed is given: the random one is kept
picture.save("scene.png")
model.generate(**settings_of("scene.png"))  # the same picture again

Reading a file does not import torch, so the command line answers quickly.
"""

from __future__ import annotations

import io
import json
import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import IO, Any

from PIL import Image, PngImagePlugin, UnidentifiedImageError

from janusflow import __version__
from janusflow.pipelines.allowed import ALLOWED, DONE, is_short_text
from janusflow.pipelines.digests import input_digests as input_digests  # also imported from here
from janusflow.pipelines.digests import pixels_digest
from janusflow.pipelines.digests import weights_digest as weights_digest
from janusflow.processing.images import ImageSource, load_image

KEY = "janusflow"  # of the text chunk that contains everything as JSON
MAX_TEXT = 1 << 20  # maximum characters of a chunk that is read
PARTS = ("settings", "model", "inputs", "versions")
MODEL = ("name", "family", "digest", "vae", "adapter", "quantize", "dtype", "device", "sft_format")
FOREIGN = "does not say how it was made; expected a PNG (or its picture) that janusflow generated"


@dataclass(frozen=True)
class Provenance:
    """How one picture was made.

    Attributes:
        settings: arguments of `generate` that recreate it: `prompts`, `seed` and the sampler's.
        model: its model: name, family, digest (of the weights), vae, adapter, quantize, dtype, device, sft_format.
        inputs: digests of the pictures that must be given again, by argument (`image`, `mask`).
        versions: versions of janusflow and torch.
        pixels: digest of the picture's pixels; None in files of versions that did not store it.
        changed_by_callback: whether a callback changed the generation, which the settings do not record.
        done: what `plan`, `best_of` and `redraw` did, under the keys of `DONE`.
    """

    settings: dict[str, Any]
    model: dict[str, str | None] = field(default_factory=dict)
    inputs: dict[str, str] = field(default_factory=dict)
    versions: dict[str, str] = field(default_factory=dict)
    pixels: str | None = None
    changed_by_callback: bool = False
    done: dict[str, Any] = field(default_factory=dict)

    def info(self) -> dict[Any, Any]:
        """Return the entries of a picture's `info`: everything as JSON, and the keys that other programs look for."""
        settings = {name: value for name, value in self.settings.items() if name != "prompts"}
        prompt, known = self.settings["prompts"], settings.get
        size = f"{known('width')}x{known('height')}" if known("width") else None
        words = {
            "Steps": known("num_inference_steps"),
            "Sampler": known("solver"),
            "CFG scale": known("guidance_scale"),
            "Seed": known("seed"),
            "Size": size,
            "Model": self.model.get("name"),
            "Version": f"janusflow {self.versions.get('janusflow', '')}",
        }
        told = ", ".join(f"{name}: {value}" for name, value in words.items() if value is not None)
        shown = {name: value for name, value in settings.items() if value is not None}
        return {
            "prompt": prompt,
            **shown,
            **self.done,
            **({"model": self.model["name"]} if self.model.get("name") else {}),
            "Software": f"janusflow {self.versions.get('janusflow', '')}",
            "parameters": f"{prompt}\n{told}",
            KEY: json.dumps(asdict(self), default=lambda value: value.item()),  # NumPy scalars
        }


class GeneratedPicture(Image.Image):
    """A PIL image whose `save` writes how it was made into the text of a PNG, which PIL itself leaves out."""

    def save(
        self,
        fp: str | bytes | os.PathLike[str] | os.PathLike[bytes] | IO[bytes],
        format: str | None = None,  # noqa: A002 (PIL's name)
        **params: Any,
    ) -> None:
        """Save as PIL does; a given `pnginfo` replaces the text."""
        params.setdefault("pnginfo", png_text(self.info))
        super().save(fp, format, **params)


def sign(
    pictures: Sequence[Image.Image],
    prompts: Sequence[str],
    seeds: Sequence[int | None],
    settings: Mapping[str, Any],
    model: Mapping[str, str | None],
    inputs: Mapping[str, Sequence[str]],
    *,
    changed: Sequence[bool] = (),
    done: Sequence[Mapping[str, Any]] = (),
) -> list[Image.Image]:
    """Return the pictures, each with its provenance.

    Args:
        pictures: N pictures.
        prompts: prompt of each picture.
        seeds: seed of each picture; None where the noise did not come from a seed.
        settings: the other arguments of `generate`.
        model: see `Provenance`.
        inputs: one digest per picture, for each argument.
        changed: whether a callback changed each picture; empty for none.
        done: what the procedure of each picture did; empty for none.
    """
    import torch

    versions = {"janusflow": __version__, "torch": torch.__version__}
    signed: list[Image.Image] = []
    for number, (picture, prompt, seed) in enumerate(zip(pictures, prompts, seeds, strict=True)):
        own = {name: digests[number] for name, digests in inputs.items()}
        asked = {"prompts": prompt, "seed": seed, **settings}
        altered, steps = bool(changed) and changed[number], dict(done[number]) if done else {}
        made = Provenance(asked, dict(model), own, versions, pixels_digest(picture), altered, steps)
        kept = GeneratedPicture.__new__(GeneratedPicture)
        kept.__setstate__(picture.__getstate__())
        kept.info = picture.info | made.info()
        signed.append(kept)
    return signed


def png_text(info: Mapping[Any, Any], more: Mapping[str, object] | None = None) -> PngImagePlugin.PngInfo:
    """Return the text chunks of a PNG: how the picture was made, if its `info` says so, and `more`."""
    told = _parse(info[KEY], "the picture").info() if KEY in info else {}
    chunks = PngImagePlugin.PngInfo()
    for name, value in {**told, **(more or {})}.items():
        chunks.add_itxt(name, str(value).encode("utf-8", "replace").decode())
    return chunks


def settings_of(picture: ImageSource) -> dict[str, Any]:
    """Return the arguments with which `generate` recreates a picture.

    With the same weights on the same machine, the result is bit-identical if the picture was the only one in its batch.
    If it came from a larger batch, some values may differ by one level of 255, because the order of sums depends on the
    batch. A picture that a callback changed during generation, or that was edited since, is rejected.

    Example:
        >>> from janusflow import JanusFlow
        >>> model = JanusFlow.from_pretrained("tiny")
        >>> picture = model.generate("a red circle", num_inference_steps=2)[0]  # no seed: a random one is kept
        >>> picture.save("circle.png")
        >>> model.generate(**settings_of("circle.png"))[0] == picture
        True
        >>> steps = {**settings_of("circle.png"), "num_inference_steps": 4}  # a variation of it

    Args:
        picture: a PNG file saved from a generated picture, its bytes, or the picture itself.

    Returns:
        `prompts`, `seed` and the sampler's settings, with their types. The pictures of image to image and inpainting
        are not included: give `image=` and `mask=` again.

    Raises:
        ValueError: if the picture has no such record, contains values that are not allowed, was changed by a callback
            or edited, or started from noise that no seed gives (`latents=`, or a generator that was used before).
    """
    made = provenance_of(picture)
    if made.changed_by_callback:
        raise ValueError(
            f"{_name(picture)} was changed by a callback during generation, so its settings do not recreate it"
        )
    if made.pixels is not None and made.pixels != pixels_digest(load_image(picture)):
        raise ValueError(f"{_name(picture)} was edited after it was generated, so its settings do not recreate it")
    if made.settings["seed"] is None:
        raise ValueError(
            f"{_name(picture)} was generated from latents= or a used generator, which are not in it; pictures that are "
            "generated with seed= can be generated again"
        )
    return dict(made.settings)


def provenance_of(picture: ImageSource) -> Provenance:
    """Return how a picture was made, from a PNG file, its bytes or the picture itself.

    Raises:
        ValueError: if it has no such record, or the record is damaged or not allowed.
    """
    name = _name(picture)
    told = picture.info.get(KEY) if isinstance(picture, Image.Image) else _text_of_file(picture, name)
    if not isinstance(told, str):
        raise ValueError(f"{name} {FOREIGN}")
    return _parse(told, name)


def describe_picture(picture: ImageSource) -> list[tuple[str, str]]:
    """Return how a picture was made, as names and values to print.

    Raises:
        ValueError: as in `provenance_of`.
    """
    made = provenance_of(picture)
    settings = {name: value for name, value in made.settings.items() if name != "prompts"}
    rows: dict[str, Any] = {"prompt": made.settings["prompts"], **settings, **made.done}
    rows |= {name: value for name, value in made.model.items() if value is not None and name != "name"}
    rows |= {"model": made.model["name"], **{f"{name} (sha256)": digest for name, digest in made.inputs.items()}}
    if made.changed_by_callback:
        rows["changed by callback"] = "yes; the settings do not recreate it"
    rows |= {f"{name} version": value for name, value in made.versions.items()}
    return [(name, "-" if value is None else _printable(str(value))) for name, value in rows.items()]


def _printable(text: str) -> str:
    """Replace characters that could control a terminal."""
    return "".join(character if character.isprintable() else " " for character in text)


def _name(picture: ImageSource) -> str:
    return f"picture {str(picture)!r}" if isinstance(picture, (str, os.PathLike)) else "the picture"


def _text_of_file(picture: ImageSource, name: str) -> Any:
    if not isinstance(picture, (str, bytes, os.PathLike)):
        return None
    place = io.BytesIO(picture) if isinstance(picture, bytes) else Path(os.path.expanduser(picture))
    try:
        with Image.open(place) as opened:
            return opened.info.get(KEY)
    except FileNotFoundError as error:
        raise ValueError(f"{name} does not exist") from error
    except UnidentifiedImageError as error:
        raise ValueError(f"{name} is not a readable image") from error
    except Exception as error:  # Pillow's readers raise nearly anything
        raise ValueError(f"{name} is damaged: {error}") from error


def _parse(text: str, name: str) -> Provenance:
    """Parse a text chunk and check its keys, types and ranges, so that callers can rely on them."""
    if len(text) > MAX_TEXT:
        raise ValueError(f"{name} holds {len(text)} characters on how it was made; at most {MAX_TEXT} are read")
    try:
        told = json.loads(text, parse_constant=lambda constant: math.nan)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{name} is damaged: what it says of how it was made is not JSON") from error
    if not isinstance(told, dict) or not all(isinstance(told.get(part), dict) for part in PARTS):
        raise ValueError(f"{name} {FOREIGN}")
    settings = told["settings"]
    if not {"prompts", "seed"} <= settings.keys():
        raise ValueError(f"{name} {FOREIGN}")
    for setting, value in settings.items():
        if setting not in ALLOWED:
            by = str(told["versions"].get("janusflow", "another version"))[:20]
            raise ValueError(f"{name} has a setting {setting[:40]!r} that is not known here; it names janusflow {by!r}")
        holds, allowed = ALLOWED[setting]
        if not holds(value):
            raise ValueError(f"{name} has {setting} {str(value)[:40]!r}; expected {allowed}")
    for part, values in ((part, told[part]) for part in PARTS[1:]):
        for key, value in values.items():
            if not (value is None and part == "model") and not is_short_text(value):
                raise ValueError(f"{name} has {part} {str(key)[:40]!r} {str(value)[:40]!r}; expected a short text")
    model = {key: told["model"].get(key) for key in MODEL}
    interval = settings.get("guidance_interval")
    typed = {**settings, **({"guidance_interval": tuple(interval)} if interval else {})}
    pixels, changed, done = told.get("pixels"), told.get("changed_by_callback", False), told.get("done", {})
    if not (pixels is None or is_short_text(pixels)) or type(changed) is not bool:
        raise ValueError(f"{name} is damaged: its pixels or changed_by_callback are of another type")
    if not isinstance(done, dict) or not all(key in DONE and DONE[key](value) for key, value in done.items()):
        raise ValueError(f"{name} is damaged: what was done for it is not a record of plan, best_of or redraw")
    return Provenance(typed, model, dict(told["inputs"]), dict(told["versions"]), pixels, changed, done)
