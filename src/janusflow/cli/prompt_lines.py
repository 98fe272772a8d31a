"""Read and check the lines of a file of prompts without a model; `prompt_file.py` generates them."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from janusflow.arguments import suggestion, whole_number, whole_text
from janusflow.files import loads
from janusflow.pipelines.allowed import ALLOWED

SHORT = {
    "steps": "num_inference_steps",
    "guidance": "guidance_scale",
    "n": "num_images_per_prompt",
    "num_images": "num_images_per_prompt",
}


@dataclass(frozen=True)
class Line:
    """One line of a file of prompts; None stands for the command's own option."""

    number: int
    prompt: str
    pictures: int | None
    seed: int | None
    settings: Mapping[str, Any]


def lines_of(file: Path) -> list[tuple[int, str]]:
    """Return the lines of a UTF-8 file that are not empty, with their numbers from 1.

    Raises:
        ValueError: if it cannot be read, or all lines are empty.
    """
    try:
        text = file.expanduser().read_text(encoding="utf-8-sig")
    except FileNotFoundError as error:
        raise ValueError(f"--prompts {str(file)!r} does not exist") from error
    except (OSError, UnicodeDecodeError) as error:
        raise ValueError(f"--prompts {str(file)!r} cannot be read as UTF-8 text: {error}") from error
    lines = [(number, line) for number, line in enumerate(text.split("\n"), start=1) if line.strip()]
    if not lines:
        raise ValueError(f"--prompts {str(file)!r} has no prompt; expected one per line")
    return lines


def read_lines(file: Path, texts: Sequence[tuple[int, str]], known: Sequence[str]) -> list[Line]:
    """Read lines of a text file (a prompt each) or a .jsonl file (an object with `prompt` and settings each).

    Args:
        file: its suffix decides which of the two it is.

    Raises:
        ValueError: if something is not allowed; names the line.
    """
    objects = file.suffix.lower() in (".jsonl", ".ndjson", ".json")
    lines = []
    for number, line in texts:
        try:
            lines.append(_read_object(number, line, known) if objects else Line(number, line.strip(), None, None, {}))
        except ValueError as error:
            raise ValueError(f"line {number} of {file}: {error}") from error
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
    if pictures is not None:
        whole_number("n", pictures)
    for name, value in settings.items():
        if name not in known or name not in ALLOWED or name == "prompts":
            names = [*(name for name in known if name in ALLOWED and name != "prompts"), *SHORT, "size"]
            hint = suggestion(name, names) or f"; choose from {', '.join(dict.fromkeys(names))}"
            raise ValueError(f"it has an unknown setting {name[:40]!r}{hint}")
        holds, allowed = ALLOWED[name]
        if not holds(value):
            raise ValueError(f"{name} is {str(value)[:40]!r}; expected {allowed}")
    if "guidance_interval" in settings:
        settings["guidance_interval"] = tuple(settings["guidance_interval"])
    return Line(number, whole_text("prompt", row["prompt"].strip()), pictures, settings.pop("seed", None), settings)


def _size(value: Any) -> dict[str, int]:
    """Return height and width of 512, "512x384" (width first) or [512, 384]."""
    if value is None:
        return {}
    sides = re.fullmatch(r"(\d{1,5})x(\d{1,5})", value) if isinstance(value, str) else None
    found = [int(side) for side in sides.groups()] if sides else [value] * 2 if type(value) is int else value
    if not isinstance(found, list) or len(found) != 2 or not all(type(side) is int for side in found):
        raise ValueError(f"size is {str(value)[:40]!r}; expected pixels, such as 512 or '512x384' (width x height)")
    return {"width": found[0], "height": found[1]}
