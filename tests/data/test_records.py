"""Rows as records: captions, and conversations of every form."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from janusflow.data.records import read_row
from tests.data.sources.kinds import png


def test_conversations_of_llava_and_of_openai() -> None:
    llava = {
        "image": "a.png",
        "conversations": [{"from": "human", "value": "<image>\nwhat?"}, {"from": "gpt", "value": "a star"}],
    }
    record = read_row(llava, "row", Path("/data"))
    assert record.turns == (("<image_placeholder>\nwhat?", "a star"),)
    assert record.images == (Path("/data/a.png"),)
    openai = {"messages": [{"role": "system", "content": "s"}, *_messages("hi", "hello", "bye", "see you")]}
    assert read_row(openai, "row", Path()).turns == (("hi", "hello"), ("bye", "see you"))
    assert read_row({"messages": json.dumps(_messages("hi", "hello"))}, "row", Path()).turns == (("hi", "hello"),)
    both = {"json": {"text": "from json"}, "png": png(1)}
    assert read_row(both, "row", Path()).text == "from json"


TEXT = {"type": "text", "text": "?"}
LLAVA = [{"from": "human", "value": "what?"}, {"from": "gpt", "value": "a star"}]


def test_conversations_with_a_picture_anywhere_are_read_as_chat_reads_them() -> None:
    tag = "<image_placeholder>"
    later = [*LLAVA, {"from": "human", "value": "<image>\nand here?"}, {"from": "gpt", "value": "a cross"}]
    record = read_row({"image": "b.png", "conversations": later}, "row", Path("/d"))
    assert record.turns == (("what?", "a star"), (f"{tag}\nand here?", "a cross"))
    assert record.images == (Path("/d/b.png"),)
    parts = [
        {"role": "system", "content": "be brief"},
        {
            "role": "user",
            "content": [{"type": "image_url", "image_url": {"url": "a.png"}}, {"type": "text", "text": "?"}],
        },
        {"role": "assistant", "content": [{"type": "text", "text": "a star"}]},
        {"role": "user", "content": [{"type": "text", "text": "and "}, {"type": "image"}]},
        {"role": "assistant", "content": "a cross"},
    ]
    record = read_row({"messages": parts, "images": ["b.png"]}, "row", Path("/d"))
    assert record.turns == ((f"{tag}\n?", "a star"), (f"and {tag}", "a cross"))
    assert record.images == (Path("/d/a.png"), Path("/d/b.png")) and record.system == "be brief"
    own = [{"role": "user", "content": "?", "images": ["a.png"]}, {"role": "assistant", "content": "a star"}]
    assert read_row({"messages": own, "image": "a.png"}, "row", Path()).images == (Path("a.png"),)
    mapped = [{"role": "user", "content": [{"type": "image", "image": {"bytes": png(1), "path": None}}]}, own[1]]
    assert read_row({"messages": mapped}, "row", Path()).images == (png(1),)


def test_pictures_that_row_and_messages_both_name_come_once() -> None:
    def asked(*parts: str | None) -> list[dict[str, Any]]:
        shown = [{"type": "image"} if one is None else {"type": "image", "image": one} for one in parts]
        return [{"role": "user", "content": [*shown, TEXT]}, {"role": "assistant", "content": "a star"}]

    def read(listed: list[str], *talk: dict[str, Any]) -> list[str]:
        record = read_row({"images": listed, "messages": list(talk)}, "row", Path("/d"))
        assert sum(text.count("<image_placeholder>") for turn in record.turns for text in turn) == len(record.images)
        return [Path(str(one)).name for one in record.images]

    both = [*asked("a.png"), *asked("b.png")]
    assert read(["a.png", "b.png"], *both) == read(["b.png", "a.png"], *both) == ["a.png", "b.png"]
    assert read(["b.png", "/d/a.png", "c.png"], *both) == ["c.png", "a.png", "b.png"]
    assert read(["b.png", "a.png"], *asked("a.png"), *asked(None)) == ["a.png", "b.png"]
    assert read(["a.png"], *asked("a.png"), *asked(None)) == ["a.png", "a.png"]


@pytest.mark.parametrize("empty", ["", None, [], [""], {"bytes": None, "path": None}])
def test_an_empty_picture_is_none(empty: object) -> None:
    record = read_row({"image": empty, "conversations": LLAVA}, "row", Path())
    assert (record.images, record.turns) == ((), (("what?", "a star"),))


def test_turns_that_teach_nothing_are_left_out_and_noted() -> None:
    greeting, open_end = {"from": "gpt", "value": "<image>\nhi"}, {"from": "human", "value": "<image>\nbye"}
    record = read_row({"image": ["a.png", "b.png"], "conversations": [greeting, *LLAVA, open_end]}, "row", Path())
    assert (record.turns, record.images) == ((("what?", "a star"),), (Path("a.png"),))
    assert "begins with an assistant turn" in record.note and "ends with a user turn" in record.note
    assert read_row({"conversations": LLAVA}, "row", Path()).note == ""


def test_a_number_is_a_text_too() -> None:
    assert [read_row({"text": text}, "row", Path()).text for text in (7, 0, 1.5, "2024")] == ["7", "0", "1.5", "2024"]
    assert read_row({"text": float("nan"), "caption": "a star"}, "row", Path()).text == "a star"


def _messages(*texts: str) -> list[dict[str, str]]:
    return [{"role": ("user", "assistant")[i % 2], "content": text} for i, text in enumerate(texts)]


@pytest.mark.parametrize(
    ("row", "words"),
    [
        ({"picture": 1}, "has no text, no conversation and no picture; its columns are picture"),
        ({"messages": _messages("hi", "hello", "bye")[::2]}, "do not take turns"),
        ({"messages": _messages("y", "x")[::-1]}, "contains no question with an answer"),
        ({"messages": _messages("hi <image>", "hello")}, "^row has 1 image tag for its 0 pictures"),
        ({"image": "a", "messages": _messages("hi", "<image>")}, "^row shows a picture in an answer"),
        ({"messages": [{"role": "user", "content": [{"type": "audio"}]}]}, "malformed message.*type 'audio'"),
        ({"messages": [{"role": "judge", "content": "x"}]}, "malformed message"),
        ({"messages": [{"role": "user", "content": ""}]}, "malformed message"),
        ({"image": 7, "text": "x"}, "given as int"),
        ({"conversations": ["hi"]}, "^row has a malformed message: 'hi'"),
        ({"conversations": 5}, "^row is malformed: TypeError"),
        ({"image": {"name": "a.png"}, "text": "x"}, "^row is malformed: KeyError: 'path'"),
        ({"messages": "{not json"}, "^row: its conversation is '{not json'; expected a list"),
        ({"text": "half a \ud83d"}, "^row is malformed: .*surrogates not allowed"),
        ({"messages": _messages("hi \ud83d", "hello")}, "^row is malformed: .*surrogates not allowed"),
    ],
)
def test_malformed_rows(row: dict, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        read_row(row, "row", Path())


def test_an_empty_text_gives_way_to_the_next_column(tmp_path: Path) -> None:
    row = {"text": "", "caption": "a star", "image": png(1)}
    assert read_row(row, "row", tmp_path).text == "a star"


def test_a_conversation_that_is_a_text_is_named(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="row: its conversation is 'hello'; expected a list of messages"):
        read_row({"conversations": "hello"}, "row", tmp_path)
