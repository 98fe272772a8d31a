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
import unicodedata
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import IO, Any

from PIL import Image, PngImagePlugin, UnidentifiedImageError

from janusflow import __version__
from janusflow.arguments import LARGEST, SMALLEST
from janusflow.pipelines.digests import input_digests as input_digests  # also imported from here
from janusflow.pipelines.digests import pixels_digest
from janusflow.pipelines.digests import weights_digest as weights_digest
from janusflow.presets import DECODERS
from janusflow.processing.images import ImageSource, load_image

KEY = "janusflow"  # of the text chunk that contains everything as JSON
MAX_TEXT = 1 << 20  # maximum characters of a chunk that is read
MAX_STEPS, MAX_SIDE = 10_000, 8192  # largest settings that a file may ask for
MAX_NAME = 4096  # maximum characters of a name or a path
MAX_WORDS = 20_000  # maximum characters of a plan or a reason
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


# --- reading untrusted files -----------------------------------------------------------------------------------------


def _whole(low: int, high: int) -> Callable[[Any], bool]:
    return lambda value: type(value) is int and low <= value <= high


def _number(low: float, high: float) -> Callable[[Any], bool]:
    return lambda value: type(value) in (int, float) and low <= value <= high


def _interval(value: Any) -> bool:
    return type(value) is list and len(value) == 2 and all(map(_number(0, 1), value))


def _text(value: Any) -> bool:
    """Return whether this is a short text without control characters, such as a name or a path in any language."""
    return isinstance(value, str) and len(value) <= MAX_NAME and not any(map(_is_control, value))


def _is_control(character: str) -> bool:
    return unicodedata.category(character) == "Cc"


def _several(holds: Callable[[Any], bool]) -> Callable[[Any], bool]:
    return lambda value: type(value) is list and all(map(holds, value))


def _words(value: Any) -> bool:
    return isinstance(value, str) and len(value) <= MAX_WORDS


ALLOWED: dict[str, tuple[Callable[[Any], bool], str]] = {
    "prompts": (lambda value: isinstance(value, str) and bool(value.strip()), "some text"),
    "seed": (lambda value: value is None or _whole(0, 2**64 - 1)(value), "a whole number from 0 to 2**64 - 1"),
    "num_inference_steps": (_whole(1, MAX_STEPS), f"a whole number from 1 to {MAX_STEPS}"),
    "guidance_scale": (_number(1, LARGEST), "a number from 1 upwards"),
    "guidance_interval": (_interval, "two numbers from 0 to 1"),
    "solver": (lambda value: _text(value) and value.isidentifier(), "the name of a solver"),  # `generate` knows which
    "shift": (_number(SMALLEST, LARGEST), "a positive number"),
    "preset": (lambda value: _text(value) and value.isidentifier(), "the name of a preset"),
    "decoder": (lambda value: value in DECODERS, " or ".join(DECODERS)),
    "strength": (_number(SMALLEST, 1), "a number above 0 and at most 1"),
    "paste_original": (lambda value: type(value) is bool, "true or false"),
    "height": (_whole(1, MAX_SIDE), f"a number of pixels up to {MAX_SIDE}"),
    "width": (_whole(1, MAX_SIDE), f"a number of pixels up to {MAX_SIDE}"),
    "do_sample": (lambda value: type(value) is bool, "true or false"),
    "temperature": (_number(SMALLEST, LARGEST), "a positive number"),
    "top_k": (_whole(0, 2**31), "a whole number from 0 upwards"),
    "top_p": (_number(SMALLEST, 1), "a number above 0 and at most 1"),
    "image_guidance_scale": (_number(0, LARGEST), "a number from 0 upwards"),
    "plan": (lambda value: type(value) is bool or (_words(value) and "{}" in value), "true, false or an instruction"),
    "best_of": (_whole(1, 256), "a whole number from 1 to 256"),
    "redraw": (_whole(0, 64), "a whole number from 0 to 64"),
}
"""Each setting that a file may contain, with its check and a description of the allowed values."""

DONE: dict[str, Callable[[Any], bool]] = {
    "plan": _words,
    "scores": _several(_number(0, 1)),
    "seeds": _several(_whole(0, 2**64 - 1)),
    "kept": _whole(0, 255),
    "redraws": _whole(0, 64),
    "reasons": _several(_words),
}
"""What a procedure records for a picture: the plan; the model's score and the seed of each picture generated for it, in
order; which of them was kept (`best_of`); how often it was generated again (`redraw`), and the model's reasons."""

PARTS = ("settings", "model", "inputs", "versions")
MODEL = ("name", "family", "digest", "vae", "adapter", "quantize", "dtype", "device", "sft_format")


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
            if not (value is None and part == "model") and not _text(value):
                raise ValueError(f"{name} has {part} {str(key)[:40]!r} {str(value)[:40]!r}; expected a short text")
    model = {key: told["model"].get(key) for key in MODEL}
    interval = settings.get("guidance_interval")
    typed = {**settings, **({"guidance_interval": tuple(interval)} if interval else {})}
    pixels, changed, done = told.get("pixels"), told.get("changed_by_callback", False), told.get("done", {})
    if not (pixels is None or _text(pixels)) or type(changed) is not bool:
        raise ValueError(f"{name} is damaged: its pixels or changed_by_callback are of another type")
    if not isinstance(done, dict) or not all(key in DONE and DONE[key](value) for key, value in done.items()):
        raise ValueError(f"{name} is damaged: what was done for it is not a record of plan, best_of or redraw")
    return Provenance(typed, model, dict(told["inputs"]), dict(told["versions"]), pixels, changed, done)
