"""The settings and records that a picture's file may contain, each with a check of its value: files are untrusted."""

from __future__ import annotations

import unicodedata
from collections.abc import Callable
from typing import Any

from janusflow.arguments import LARGEST, MAX_STEPS, MAX_TOP_K, SMALLEST
from janusflow.presets import DECODERS

MAX_SIDE = 8192  # largest side that a file may ask for
MAX_NAME = 4096  # maximum characters of a name or a path
MAX_WORDS = 20_000  # maximum characters of a plan or a reason


def is_short_text(value: Any) -> bool:
    """Return whether this is a short text without control characters, such as a name or a path in any language."""
    return isinstance(value, str) and len(value) <= MAX_NAME and not any(map(_is_control, value))


def as_short_text(value: str) -> str:
    """Return a name or a path such that `is_short_text` holds: control characters become spaces."""
    return "".join(" " if _is_control(character) else character for character in value)[:MAX_NAME]


def _is_control(character: str) -> bool:
    return unicodedata.category(character) == "Cc"


def _whole(low: int, high: int) -> Callable[[Any], bool]:
    return lambda value: type(value) is int and low <= value <= high


def _number(low: float, high: float) -> Callable[[Any], bool]:
    return lambda value: type(value) in (int, float) and low <= value <= high


def _interval(value: Any) -> bool:
    return type(value) is list and len(value) == 2 and all(map(_number(0, 1), value))


def _several(holds: Callable[[Any], bool]) -> Callable[[Any], bool]:
    return lambda value: type(value) is list and all(map(holds, value))


def _identifier(value: Any) -> bool:
    return is_short_text(value) and value.isidentifier()


def _name(value: Any) -> bool:
    return _identifier(value.replace("-", "_")) if isinstance(value, str) else False


def _words(value: Any) -> bool:
    return isinstance(value, str) and len(value) <= MAX_WORDS


ALLOWED: dict[str, tuple[Callable[[Any], bool], str]] = {
    "prompts": (lambda value: isinstance(value, str) and bool(value.strip()), "some text"),
    "seed": (lambda value: value is None or _whole(0, 2**64 - 1)(value), "a whole number from 0 to 2**64 - 1"),
    "num_inference_steps": (_whole(1, MAX_STEPS), f"a whole number from 1 to {MAX_STEPS}"),
    "guidance_scale": (_number(1, LARGEST), "a number from 1 upwards"),
    "guidance_interval": (_interval, "two numbers from 0 to 1"),
    "solver": (_name, "the name of a solver"),  # `generate` knows which
    "shift": (_number(SMALLEST, LARGEST), "a positive number"),
    "preset": (_identifier, "the name of a preset"),
    "decoder": (lambda value: value in DECODERS, " or ".join(DECODERS)),
    "strength": (_number(SMALLEST, 1), "a number above 0 and at most 1"),
    "paste_original": (lambda value: type(value) is bool, "true or false"),
    "height": (_whole(1, MAX_SIDE), f"a number of pixels up to {MAX_SIDE}"),
    "width": (_whole(1, MAX_SIDE), f"a number of pixels up to {MAX_SIDE}"),
    "do_sample": (lambda value: type(value) is bool, "true or false"),
    "temperature": (_number(SMALLEST, LARGEST), "a positive number"),
    "top_k": (_whole(0, MAX_TOP_K), "a whole number from 0 upwards"),
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
