"""JSON files are checked before they are used."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import pytest

from janusflow.files import checked, read_json, write_text


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"[" * 100_000, "is damaged: it is nested too deeply"),
        (b'{"a": NaN}', "is damaged: it holds NaN"),
        (b'{"a": 1e999}', "is damaged: it holds 1e999, which is too large"),
        (b'{"a": -Infinity}', "is damaged: it holds -Infinity"),
        (b"\xff\xfe", "is damaged: "),
        (b'{"a":', "is damaged: Expecting value"),
    ],
)
def test_json_that_cannot_be_used_gives_one_sentence_with_the_file(
    tmp_path: Path, content: bytes, message: str
) -> None:
    file = tmp_path / "config.json"
    file.write_bytes(content)
    with pytest.raises(ValueError, match=f"config.json {message}") as error:
        read_json(file)
    assert "\n" not in str(error.value) and len(str(error.value)) < 300


@dataclass
class Settings:
    size: int
    mean: tuple[float, ...] = (0.5,)


def test_values_are_typed_without_guessing() -> None:
    assert checked(Settings, {"size": 3, "mean": [1, 0.5]}, "x.json") == Settings(3, (1.0, 0.5))
    for value, message in (
        ({"size": "3"}, "x.json is damaged: size: Input should be a valid integer"),
        ({"size": True}, "x.json is damaged: size: .*given: True"),
        ({}, "x.json is damaged: size: Field required$"),
        ({"size": 3, "mean": None}, "x.json is damaged: mean: "),
        ([], "x.json is damaged: "),
    ):
        with pytest.raises(ValueError, match=message):
            checked(Settings, value, "x.json")


def test_a_text_is_written_whole_and_nothing_else_stays(tmp_path: Path) -> None:
    write_text(tmp_path / "a.json", "1")
    write_text(tmp_path / "a.json", "2")
    assert [(file.name, file.read_text()) for file in tmp_path.iterdir()] == [("a.json", "2")]
