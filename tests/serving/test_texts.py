"""Text that is certain is handed out at once, the rest later."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from janusflow.engine.streaming import Pieces
from janusflow.serving.choosing import penalized
from janusflow.serving.stopping import StopStrings


class Bytes:
    """A tokenizer whose tokens are bytes of UTF-8."""

    def decode(self, ids: list[int], **options: Any) -> str:
        return bytes(ids).decode("utf-8", "replace")


def pieces(text: str, stop: list[str]) -> tuple[list[str], bool]:
    """What each byte of a text adds, and whether a stop string ended it."""
    texts, stops, out = Pieces(Bytes()), StopStrings(stop), []
    for byte in text.encode():
        piece, stopped = stops.add(texts.add(byte))
        out.append(piece)
        if stopped:
            return out, True
    return [*out, stops.add(texts.rest())[0] + stops.rest()], False


def test_a_character_of_several_bytes_comes_whole() -> None:
    assert pieces("a€b", []) == (["a", "", "", "€", "b", ""], False)


@pytest.mark.parametrize(
    ("text", "stop", "expected", "stopped"),
    [
        ("one END two", ["END"], "one ", True),
        ("one EN two", ["END"], "one EN two", False),
        ("one EN", ["END"], "one EN", False),
        ("aab", ["ab", "b"], "a", True),
        ("x\ny", ["\n"], "x", True),
        ("abcabd", ["abd"], "abc", True),
    ],
)
def test_stop_strings_end_the_text_and_are_never_handed_out(
    text: str, stop: list[str], expected: str, stopped: bool
) -> None:
    found, ended = pieces(text, stop)
    assert ("".join(found), ended) == (expected, stopped)


def test_what_the_answer_continues_is_not_handed_out_and_does_not_stop_it() -> None:
    texts, stops = Pieces(Bytes(), list(b"END")), StopStrings(["END"])
    assert stops.add(texts.add(ord("!"))) == ("!", False)


def test_penalties_lower_the_logits_of_tokens_that_were_used() -> None:
    logits = torch.tensor([[1.0, 2.0, 3.0]])
    found = penalized(logits, [2, 0, 2], presence=0.5, frequency=0.25)
    assert torch.equal(found, torch.tensor([[0.25, 2.0, 2.0]]))
    assert torch.equal(logits, torch.tensor([[1.0, 2.0, 3.0]]))
