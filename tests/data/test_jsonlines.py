"""JSON lines with malformed ones among them: each costs itself, by index and streamed."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from PIL import Image

from janusflow.data.jsonlines import JsonLines
from janusflow.data.sources import FileSource, file_config, kind_of, tasks_of
from janusflow.data.streams import StreamSource

LINES = [
    b'{"text": "caption 0"}',
    b'{"text": "cut o',
    b"",
    b'{"text": "caption 1", "score": 1}',
    b"[1, 2]",
    b'{"text": "caption 2", "score": "high", "image": ["a.png", "b.png"]}',
    b'{"text": "\xff\xfe"}',
    b'{"text": "caption 3", "score": {"of": 1}, "image": "a.png"}\r',
]
BROKEN = (2, 5, 7)  # their line numbers
GOOD = [f"caption {number}" for number in range(4)]


@pytest.fixture
def lines(tmp_path: Path) -> Path:
    """Four good lines, whose columns have no common types, a blank one and three that are no records."""
    (tmp_path / "rows.jsonl").write_bytes(b"\n".join(LINES))
    return tmp_path / "rows.jsonl"


def taken(source: StreamSource, count: int) -> tuple[list[str], list[str]]:
    """Texts of the records and words about the broken ones among the next."""
    texts, faults = [], []
    for _ in range(count):
        try:
            texts.append(source.next().text)
        except ValueError as error:
            faults.append(str(error))
    return texts, faults


def names_them(faults: list[str], file: Path) -> bool:
    return [fault.split(" ")[0] for fault in faults] == [f"{file}:{number}" for number in BROKEN]


def test_a_malformed_line_on_disk_costs_itself(lines: Path) -> None:
    source = FileSource(file_config("jsonl", str(lines)))
    texts, faults = [], []
    for index in range(source.length or 0):
        try:
            texts.append(source.record(index).text)
        except ValueError as error:
            faults.append(str(error))
    assert texts == GOOD
    assert names_them(faults, lines)
    fitting = FileSource(file_config("jsonl", str(lines), fitting=True), "generation")
    assert fitting.length == 1 + len(BROKEN)  # the broken ones are kept, to be told
    assert tasks_of("jsonl", str(lines)) == ("understanding", "generation")


def test_records_that_fit_are_those_of_the_task(tmp_path: Path) -> None:
    talk = [{"from": "human", "value": "why?"}, {"from": "gpt", "value": "because."}]
    rows = [
        {"image": "a.png", "text": "a star"},
        {"conversations": talk},
        {"image": "a.png", "conversations": [{"from": "human", "value": "<image>\nwhat?"}, talk[1]]},
        {"image": "a.png"},
    ]
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    Image.new("RGB", (8, 8)).save(tmp_path / "a.png")
    config = file_config("jsonl", str(tmp_path / "rows.jsonl"), fitting=True)
    skipped = {task: FileSource(config, task).skipped for task in ("understanding", "generation", "text")}
    assert skipped == {"understanding": 1, "generation": 3, "text": 2}
    assert [FileSource(config, "text").record(index).text for index in range(2)] == ["a star", ""]


def test_a_malformed_line_of_a_stream_costs_itself(lines: Path) -> None:
    config = file_config("jsonl", str(lines), streaming=True)
    texts, faults = taken(StreamSource(config, 0, 1), 7)
    assert texts == GOOD
    assert names_them(faults, lines)
    whole = StreamSource(config, 0, 1)
    told = [taken(whole, 1) for _ in range(16)]
    for stop in range(9):
        first = StreamSource(config, 0, 1)
        before = [taken(first, 1) for _ in range(stop)]
        again = StreamSource(config, 0, 1)
        again.restore(json.loads(json.dumps(first.state())))
        assert before + [taken(again, 1) for _ in range(16 - stop)] == told


def test_processes_share_streamed_lines(lines: Path) -> None:
    config = file_config("jsonl", str(lines), streaming=True)
    found = [taken(StreamSource(config, rank, 2), 4 - rank) for rank in (0, 1)]
    assert sorted(found[0][0] + found[1][0]) == GOOD
    assert len(found[0][1] + found[1][1]) == len(BROKEN)


@pytest.mark.parametrize("streaming", [False, True])
def test_a_malformed_line_of_a_folders_metadata_costs_itself(tmp_path: Path, streaming: bool) -> None:
    Image.new("RGB", (8, 8), "red").save(tmp_path / "a.png")
    rows = ['{"file_name": "a.png", "text": "a red wall"}', "{", '{"file_names": ["a.png"], "text": "one"}']
    (tmp_path / "metadata.jsonl").write_text("\n".join(rows))
    config = file_config("folder", str(tmp_path), streaming=streaming)
    source = StreamSource(config, 0, 1) if streaming else FileSource(config)
    got = iter(source.next, None) if isinstance(source, StreamSource) else map(source.record, range(3))
    first = next(got)
    assert (first.text, first.images) == ("a red wall", (tmp_path / "a.png",))
    with pytest.raises(ValueError, match=r"metadata.jsonl:2 is not valid JSON"):
        next(got)


def test_an_array_in_a_json_file_is_still_read(tmp_path: Path) -> None:
    (tmp_path / "rows.json").write_text(json.dumps([{"text": "one"}, {"text": "two"}]))
    source = FileSource(file_config("jsonl", str(tmp_path / "rows.json")))
    assert [source.record(index).text for index in range(source.length or 0)] == ["one", "two"]
    assert kind_of(str(tmp_path / "rows.json")) == "jsonl"
    for text, words in (('[{"text": "one"}]', "not a JSON object but list"), ("[\n]", "not valid JSON")):
        (tmp_path / "rows.jsonl").write_text(text)
        with pytest.raises(ValueError, match=rf"rows.jsonl:1 is {words}.*; an array is read from a .json file"):
            FileSource(file_config("jsonl", str(tmp_path / "rows.jsonl"))).record(0)


def test_an_array_is_read_item_by_item_whatever_types_its_columns_have(tmp_path: Path) -> None:
    rows = [{"text": "caf\u00e9 \U0001f600 ]", "id": 1}, {"text": "two", "id": "x"}, {"text": "three", "id": [1]}]
    file, source = tmp_path / "rows.json", file_config("jsonl", str(tmp_path / "rows.json"))
    for whole in (json.dumps(rows), json.dumps(rows, indent=2, ensure_ascii=False).replace("\n", "\r\n")):
        file.write_bytes(whole.encode())
        for opened in (FileSource(source), FileSource(file_config("jsonl", str(tmp_path / "*.json")))):
            assert [opened.record(index).text for index in range(opened.length or 0)] == [row["text"] for row in rows]
    texts, faults = taken(StreamSource(file_config("jsonl", str(file), streaming=True), 0, 1), 3)
    assert (texts, faults) == ([row["text"] for row in rows], [])
    for cut in ('[{"text": "one"}, {"text": ', '[{"text": "one"} {"text": "two"}]'):
        file.write_text(cut)
        opened = FileSource(source)
        assert (opened.length, opened.record(0).text) == (2, "one")
        with pytest.raises(ValueError, match="rows.json:2 is not valid JSON"):
            opened.record(1)


def test_rows_are_found_by_number_in_several_files(tmp_path: Path) -> None:
    files = [tmp_path / f"{number}.jsonl" for number in range(3)]
    for number, file in enumerate(files):
        file.write_text("".join(f'{{"n": {10 * number + row}}}\n' for row in range(number)))
    rows = JsonLines(files)
    assert [row["n"] for row in rows] == [10, 20, 21]
    assert [row["n"] for row in rows.select([2, 0])] == [21, 10]
