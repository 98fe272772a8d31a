"""Check arguments: whole numbers, ranges, unknown names, and how an error quotes a value."""

from __future__ import annotations

import difflib
import functools
import inspect
import math
import operator
import os
from collections.abc import Callable, Collection, Iterable
from typing import Any, ParamSpec, SupportsFloat, TypeVar, cast, get_type_hints

QUOTED_LENGTH = 200  # characters of a value that an error quotes: enough for most paths, never for a picture
QUOTED_END = 40  # how many of them come from the end, where a path has its name

SYNONYMS = {
    "adapters": ("adapter",),
    "callback": ("callback_on_step_end",),
    "cfg": ("guidance_scale", "guidance"),
    "cfg_scale": ("guidance_scale", "guidance"),
    "count": ("num_images_per_prompt", "num_images"),
    "format": ("output_type",),
    "guidance": ("guidance_scale",),
    "guidance_scale": ("guidance",),
    "init_image": ("image",),
    "lora": ("adapter",),
    "lr": ("learning_rate",),
    "mask": ("mask_image",),
    "mask_image": ("mask",),
    "max_length": ("max_new_tokens",),
    "max_tokens": ("max_new_tokens",),
    "n": ("num_images_per_prompt", "num_images"),
    "num_images": ("num_images_per_prompt",),
    "num_images_per_prompt": ("num_images",),
    "num_inference_steps": ("steps",),
    "num_samples": ("num_images_per_prompt", "num_images"),
    "num_steps": ("num_inference_steps", "steps"),
    "output": ("output_type", "out"),
    "output_dir": ("out",),
    "prompt": ("prompts",),
    "prompts": ("prompt",),
    "quantization": ("quantize",),
    "return_type": ("output_type",),
    "sampler": ("solver",),
    "sampling_steps": ("num_inference_steps", "steps"),
    "scheduler": ("solver",),
    "seeds": ("seed",),
    "size": ("height", "width"),
    "steps": ("num_inference_steps",),
    "torch_dtype": ("dtype",),
}
"""Names of arguments in other software, and their names here (or in the command line's short form)."""

P = ParamSpec("P")
R = TypeVar("R")


class UnknownArgumentError(TypeError, ValueError):
    """Raised for an unknown argument: a `TypeError` as in Python, and a `ValueError` like all errors for users."""


def quoted(value: object) -> str:
    """Return `repr(value)`, shortened for an error.

    Example:
        >>> quoted("a star")
        "'a star'"
    """
    return shortened(repr(value))


def shortened(text: str) -> str:
    """Return a text of at most `QUOTED_LENGTH` characters unchanged, or the start, end and length of a longer one."""
    if len(text) <= QUOTED_LENGTH:
        return text
    return f"{text[: QUOTED_LENGTH - QUOTED_END]}...{text[-QUOTED_END:]} ({len(text)} characters)"


def whole_number(name: str, value: object, *, least: int = 1, most: int | None = None) -> int:
    """Convert an integer (NumPy's too, with `operator.index`) to `int`; bools are errors.

    Args:
        name: name of the argument, for the error message.
        value: value to check.
        least, most: allowed range; None means no upper limit.

    Raises:
        ValueError: for any other value.
    """
    wanted = f"from {least} upwards" if most is None else f"from {least} to {most}"
    refusal = f"{name} is {quoted(value)}; expected a whole number {wanted}"
    if isinstance(value, bool) or not hasattr(value, "__index__"):
        raise ValueError(refusal)
    try:
        number = operator.index(value)
    except TypeError as error:  # such as an array of several numbers
        raise ValueError(refusal) from error
    if number < least or (most is not None and number > most):
        raise ValueError(refusal)
    return number


def number_from(name: str, value: object, least: float | None = None, most: float | None = None) -> float:
    """Convert a finite number in a closed range to `float`; None means no limit at that end.

    NumPy numbers, tensors with one value and fractions are accepted; strings and bools are errors.

    Raises:
        ValueError: for any other value.
    """
    ends = {"from": least, "to": most}
    wanted = " ".join(["number", *(f"{word} {end:g}" for word, end in ends.items() if end is not None)])
    wanted = f"finite {wanted}{'' if least is None else ' upwards'}" if most is None else wanted
    refusal = f"{name} is {quoted(value)}; expected a {wanted}"
    if isinstance(value, (bool, str, bytes)) or not (hasattr(value, "__float__") or hasattr(value, "__index__")):
        raise ValueError(refusal)
    try:
        number = float(cast(SupportsFloat, value))
    except (TypeError, ValueError, OverflowError, RuntimeError) as error:  # such as an array of several numbers
        raise ValueError(refusal) from error
    if not math.isfinite(number) or (least is not None and number < least) or (most is not None and number > most):
        raise ValueError(refusal)
    return number


SMALLEST, LARGEST = 1e-6, 1e6  # limits of positive settings; beyond them float32 becomes 0 or infinite
MAX_STEPS = 10_000  # of a solver
MAX_TOP_K = 2**31  # more than any vocabulary has


def true_or_false(name: str, value: object) -> bool:
    """Return a value that is true or false.

    Raises:
        ValueError: for any other value, even "false" and 0.
    """
    if not isinstance(value, bool):
        raise ValueError(f"{name} is {quoted(value)}; expected true or false")
    return value


def check_fields(settings: Any, *names: str) -> None:
    """Check all or the named fields of a dataclass against their types and pydantic constraints, without conversion.

    Raises:
        ValueError: for the first field that does not fit.
    """
    from pydantic import TypeAdapter, ValidationError

    kinds = get_type_hints(type(settings), include_extras=True)
    for name in names or kinds:
        try:
            TypeAdapter(kinds[name]).validate_python(getattr(settings, name), strict=True)
        except ValidationError as error:
            said = error.errors()[0]["msg"].lower()
            raise ValueError(f"{name} is {quoted(getattr(settings, name))}: {said}") from error


def whole_text(name: str, text: str) -> str:
    """Return a text without lone surrogates, which tokenizers and files do not accept.

    Python represents bytes that it cannot decode, and "\\ud800" in JSON, as lone surrogates.

    Args:
        name: name of the argument, for the error message.
        text: text to check; UTF-8 bytes that `os.fsdecode` could not decode are decoded.

    Raises:
        ValueError: for other surrogates.
    """
    try:
        text.encode()
        return text
    except UnicodeEncodeError:
        try:
            return os.fsencode(text).decode()
        except UnicodeError as error:
            raise ValueError(f"{name} is {quoted(text)}, which is not UTF-8 text") from error


def given(number: int, noun: str) -> str:
    """Return "1 picture was given" or "2 pictures were given", for an error message."""
    return f"{counted(number, noun)} {'was' if number == 1 else 'were'} given"


def counted(number: int, noun: str) -> str:
    """Return "1 picture" or "2 pictures"."""
    return f"{number} {noun}{'' if number == 1 else 's'}"


def nearest(name: str, known: Collection[str]) -> list[str]:
    """Return the known names that an unknown name probably means; an empty list if there are none.

    Args:
        name: name of an argument, an option or a key; - and _ are equivalent.
    """
    plain = name.lstrip("-").replace("-", "_").lower()
    same = {one.lstrip("-").replace("-", "_").lower(): one for one in known}
    synonyms = [same[one] for one in SYNONYMS.get(plain, ()) if one in same]
    return synonyms or [same[one] for one in difflib.get_close_matches(plain, same, n=1, cutoff=0.7)]


def suggestion(name: str, known: Collection[str]) -> str:
    """Return `nearest` as the end of an error message, "; did you mean ...?", or an empty string."""
    near = nearest(name, known)
    return f"; did you mean {' and '.join(near)}?" if near else ""


def unknown_argument(names: Iterable[str], known: Collection[str], *, of: str) -> UnknownArgumentError:
    """Return the error for unknown arguments.

    Args:
        known: all arguments of the function.
    """
    first = sorted(names)[0]
    near = suggestion(first, known) or f"; choose from {', '.join(known)}"
    return UnknownArgumentError(f"{of} has no argument {quoted(first)}{near}")


def checked_names(function: Callable[P, R]) -> Callable[P, R]:
    """Make a function raise `UnknownArgumentError`, which names the likely intended argument, for unknown arguments."""
    known = [name for name in inspect.signature(function).parameters if name not in ("self", "cls")]

    @functools.wraps(function)
    def checked(*args: P.args, **kwargs: P.kwargs) -> R:
        odd = [name for name in kwargs if name not in known]
        if odd:
            raise unknown_argument(odd, known, of=function.__name__)
        return function(*args, **kwargs)

    return checked
