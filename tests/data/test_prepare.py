"""Preparing data: what is kept, what is dropped and why."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from janusflow.data import prepare as module
from janusflow.data.prepare import PrepareConfig, prepare
from janusflow.data.records import UNANSWERED
from janusflow.data.sources import FileSource, file_config
from janusflow.data.streams import StreamSource
from janusflow.processing.images import load_image
from tests.data.conftest import CAPTION, picture, settings


@pytest.mark.parametrize("kind", ["webdataset", "parquet"])
@pytest.mark.parametrize("streaming", [False, True])
def test_what_is_kept_is_what_training_reads(folder: Path, tmp_path: Path, kind: str, streaming: bool) -> None:
    source = file_config("folder", str(folder), streaming=streaming)
    state = prepare(source, tmp_path / "out", settings(format=kind))
    assert state.counts == {
        "kept": 20,
        "duplicate": 1,
        "too small": 1,
        "too long or too wide": 1,
        "broken or malformed": 1,
        "no caption": 1,
    }
    rows = FileSource(file_config(kind, str(tmp_path / "out")))
    assert rows.length == 20
    short = sum(rows.record(index).text == "A plain picture." for index in range(20))
    assert short == state.cut
    assert 1 <= short <= 10
    assert all(rows.record(index).text in (CAPTION, "A plain picture.") for index in range(20))
    dropped = [json.loads(line) for line in (tmp_path / "out" / "dropped.jsonl").read_text().splitlines()]
    reasons = {Path(row["record"]).name: row["reason"] for row in dropped}
    broken = next(row for row in dropped if row["reason"] == "broken or malformed")
    assert str(folder / "x-broken.png") in broken["record"] + broken["detail"]
    assert reasons["x-duplicate.jpg"] == "duplicate" and reasons["x-nocaption.png"] == "no caption"
    assert {"record": str(folder / "x-small.png"), "reason": "too small", "detail": "20 x 60 pixels"} in dropped
    assert len(dropped) == 5
    sheet = Image.open(tmp_path / "out" / "sheet.jpg")
    assert sheet.width > 4 * 192 and sheet.height > 4 * 192
    report = json.loads((tmp_path / "out" / "report.json").read_text())
    assert (report["records"], report["kept"], report["shards"]) == (25, 20, state.shards)
    assert "20 of 25 pictures kept" in (tmp_path / "out" / "report.md").read_text()


def test_a_quarter_of_the_captions_is_cut_to_a_sentence(tmp_path: Path) -> None:
    (tmp_path / "raw").mkdir()
    for number in range(400):
        picture(number).save(tmp_path / "raw" / f"{number}.png")
        (tmp_path / "raw" / f"{number}.txt").write_text(CAPTION)
    state = prepare(file_config("folder", str(tmp_path / "raw")), tmp_path / "out", PrepareConfig(min_side=32))
    assert state.counts["kept"] > 380
    assert 0.19 < state.cut / state.counts["kept"] < 0.31


def test_captions_anew_and_scores(folder: Path, tmp_path: Path) -> None:
    source = file_config("folder", str(folder))
    state = prepare(
        source,
        tmp_path / "out",
        settings(min_score=120.0, short_share=0.0, batch_size=4),
        captioner=lambda pictures: [f"{p.width} wide" for p in pictures],
        scorer=lambda image: float(np.asarray(image).mean()),
    )
    assert state.counts["low score"] > 0
    assert state.counts["no caption"] == 0
    rows = FileSource(file_config("webdataset", str(tmp_path / "out")))
    assert {rows.record(index).text for index in range(rows.length or 0)} == {"64 wide"}


def test_other_settings_and_bad_ones_are_refused(folder: Path, tmp_path: Path) -> None:
    source = file_config("folder", str(folder))
    prepare(source, tmp_path / "out", settings())
    with pytest.raises(ValueError, match="was made with min_side=32; use the same settings or another --out"):
        prepare(source, tmp_path / "out", settings(min_side=33))
    for changes, words in (
        ({"format": "zip"}, "format is 'zip'"),
        ({"min_side": 0}, "min_side is 0"),
        ({"short_share": 2.0}, "short_share is 2.0"),
        ({"max_aspect": 0.5}, "max_aspect is 0.5: input should be greater than or equal to 1"),
        ({"max_aspect": float("nan")}, "max_aspect is nan"),
        ({"min_score": float("nan")}, "min_score is nan: input should be a finite number"),
        ({"shard_size": -3}, "shard_size is -3: input should be greater than or equal to 1"),
        ({"batch_size": True}, "batch_size is True"),
    ):
        with pytest.raises(ValueError, match=words):
            settings(**changes)


def talks(folder: Path) -> Path:
    """A file of four rows: a good one, and three that no picture comes of, each in another way."""
    rows = [
        {"image": "good-00.png", "text": CAPTION},
        {"image": "good-01.png", "conversations": ["hi"]},
        {"image": {"name": "good-02.png"}, "text": CAPTION},
        {"image": "good-03.png", "conversations": 5},
    ]
    (folder / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows) + "{broken")
    return folder / "rows.jsonl"


@pytest.mark.parametrize("streaming", [False, True])
def test_malformed_records_are_counted_and_named(folder: Path, tmp_path: Path, streaming: bool) -> None:
    lines = talks(folder)
    source = file_config("jsonl", str(lines), streaming=streaming)
    with pytest.warns(UserWarning, match="left out: ") as told:
        state = prepare(source, tmp_path / "out", settings())
    assert state.counts == {"kept": 1, "broken or malformed": 4}
    assert all(str(lines) in str(warning.message) for warning in told)


@pytest.mark.parametrize("error", [KeyError, TypeError, AttributeError])
def test_whatever_a_broken_picture_raises_costs_its_record(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: type[Exception]
) -> None:
    def broken(source: object) -> Image.Image:
        raise error("inside")

    monkeypatch.setattr(module, "load_image", broken)
    with pytest.warns(UserWarning, match="left out"):
        assert prepare(file_config("folder", str(folder)), tmp_path / "out", settings()).counts.keys() == {
            "broken or malformed"
        }


def test_a_stream_that_breaks_off_is_counted_and_an_empty_one_is_refused(folder: Path, tmp_path: Path) -> None:
    prepare(file_config("folder", str(folder)), tmp_path / "shards", settings(shard_size=8, short_share=0.0))
    first = min((tmp_path / "shards").glob("*.tar"))
    first.write_bytes(first.read_bytes()[:700])
    source = file_config("webdataset", str(tmp_path / "shards"), streaming=True)
    with pytest.warns(UserWarning, match=f"{first.name} cannot be read further"):
        state = prepare(source, tmp_path / "out", settings())
    assert state.counts == {"kept": 12, "broken or malformed": 1}
    (tmp_path / "none").mkdir()
    (tmp_path / "none" / "rows.jsonl").write_text("\n")
    with pytest.raises(ValueError, match="contains no records"):
        prepare(file_config("jsonl", str(tmp_path / "none"), streaming=True), tmp_path / "nothing", settings())


def test_rows_lost_with_a_file_of_a_stream_are_counted(folder: Path, tmp_path: Path) -> None:
    prepare(file_config("folder", str(folder)), tmp_path / "shards", settings(shard_size=8, short_share=0.0))
    second = sorted((tmp_path / "shards").glob("*.tar"))[1]
    second.write_bytes(second.read_bytes()[:700])
    with pytest.warns(UserWarning, match=f"{second.name} cannot be read further"):
        state = prepare(
            file_config("webdataset", str(tmp_path / "shards"), streaming=True), tmp_path / "out", settings()
        )
    assert state.counts == {"kept": 12, "broken or malformed": 8}
    assert "12 of 20 pictures kept" in (tmp_path / "out" / "report.md").read_text()
    (row,) = map(json.loads, (tmp_path / "out" / "dropped.jsonl").read_text().splitlines())
    assert row["records"] == 8


def test_the_last_records_of_a_stream_are_not_counted_twice(folder: Path, tmp_path: Path) -> None:
    (folder / "rows.jsonl").write_text('{broken\n{"image": "good-00.png", "text": "x"}\n')
    with pytest.warns(UserWarning, match="rows.jsonl:1"):
        state = prepare(file_config("jsonl", str(folder / "rows.jsonl"), streaming=True), tmp_path / "out", settings())
    assert state.counts == {"kept": 1, "broken or malformed": 1}


def test_of_two_copies_the_one_with_a_caption_is_kept(tmp_path: Path) -> None:
    place = tmp_path / "raw"
    place.mkdir()
    for name in ("a", "b", "c"):
        picture(1).save(place / f"{name}.png")
    (place / "b.txt").write_text(CAPTION)
    (place / "c.txt").write_text(CAPTION)
    state = prepare(file_config("folder", str(place)), tmp_path / "out", settings())
    assert state.counts == {"kept": 1, "no caption": 1, "duplicate": 1}
    said = iter(["", "a caption"])
    state = prepare(
        file_config("folder", str(place)),
        tmp_path / "captioned",
        settings(shard_size=1),
        captioner=lambda pictures: [next(said) for _ in pictures],
    )
    assert state.counts == {"kept": 1, "no caption": 1, "duplicate": 1}


def test_a_copy_in_the_same_shard_takes_the_place_of_a_picture_that_gets_no_caption(tmp_path: Path) -> None:
    place = tmp_path / "raw"
    place.mkdir()
    sizes = {"a": (64, 48), "b": (128, 96), "c": (96, 72)}
    for name, size in sizes.items():
        picture(1, size).save(place / f"{name}.png")
    picture(2, (80, 60)).save(place / "d.png")
    cases = ((64,), {"kept": 2, "no caption": 1, "duplicate": 1}), ((), {"kept": 2, "duplicate": 2})
    for number, (silent, counts) in enumerate((*cases, ((64, 128, 96, 80), {"no caption": 4}))):
        out = tmp_path / str(number)

        def caption(pictures: list[Image.Image], silent: tuple[int, ...] = silent) -> list[str]:
            return ["" if picture.width in silent else str(picture.width) for picture in pictures]

        state = prepare(file_config("folder", str(place)), out, settings(), captioner=caption)
        assert state.counts == counts
        assert len((out / "dropped.jsonl").read_text().splitlines()) == 4 - counts.get("kept", 0)
        assert len((out / "digests.log").read_text().splitlines()) == counts.get("kept", 0)
    rows = FileSource(file_config("webdataset", str(tmp_path / "0")))
    assert [rows.record(index).text for index in range(2)] == ["128", "80"]


def test_captions_do_not_hold_the_thoughts_of_a_model_that_reasons(folder: Path, tmp_path: Path) -> None:
    said = iter(["<think>A picture of a</think>\nA red square.", "<think>I see", *["a caption"] * 50])
    state = prepare(
        file_config("folder", str(folder)),
        tmp_path / "out",
        settings(short_share=0.0),
        captioner=lambda pictures: [next(said) for _ in pictures],
    )
    assert state.counts["no caption"] == 1, "thoughts that do not end are no caption"
    rows = FileSource(file_config("webdataset", str(tmp_path / "out")))
    assert {rows.record(index).text for index in range(rows.length or 0)} == {"A red square.", "a caption"}


def spoken(folder: Path) -> Path:
    """Conversations: about one picture, about two, about none, twice the same, with a picture that is too small."""
    for number, size in enumerate([(64, 48), (48, 64), (20, 16)]):
        picture(number, size).save(folder / f"{number}.png")
    one = [{"from": "human", "value": "what?"}, {"from": "gpt", "value": "a star. It is red."}]
    two = [*one, {"from": "human", "value": "<image>\nand in <image>?"}, {"from": "gpt", "value": "a cross"}]
    rows = [
        {"image": "0.png", "conversations": [{"from": "system", "value": "be brief"}, *one]},
        {"image": ["0.png", "1.png"], "conversations": [*two, {"from": "human", "value": "well?"}]},
        {"image": "", "conversations": one},
        {"image": "0.png", "conversations": two[2:]},
        {"image": "0.png", "conversations": [{"from": "system", "value": "be brief"}, *one]},
        {"image": ["0.png", "2.png"], "conversations": one},
        {"image": "1.png", "text": "a caption"},
    ]
    (folder / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return folder / "rows.jsonl"


def test_texts_of_conversations_are_no_captions(tmp_path: Path) -> None:
    Image.new("RGB", (128, 64), "red").save(tmp_path / "0.png")
    Image.new("RGB", (128, 64), "blue").save(tmp_path / "1.png")
    talk = [{"from": "human", "value": "<image>\nwhat?"}, {"from": "gpt", "value": "a picture"}]
    rows = [{"image": "0.png", "text": "one two three", "conversations": talk}, {"image": "1.png", "text": "one two"}]
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    prepare(file_config("jsonl", str(tmp_path / "rows.jsonl")), tmp_path / "out", settings())
    report = json.loads((tmp_path / "out" / "report.json").read_text())
    assert (report["words per caption"], report["area that square crops leave out"]) == (2, 0.5)


@pytest.mark.parametrize("kind", ["webdataset", "parquet"])
def test_conversations_pass_through_as_they_are(tmp_path: Path, kind: str) -> None:
    source = file_config("jsonl", str(spoken(tmp_path)))
    out = tmp_path / "out"
    with pytest.warns(UserWarning, match="2 image tags for its 1 picture"):
        state = prepare(source, out, settings(format=kind), captioner=lambda pictures: ["anew"] * len(pictures))
    assert state.counts == {"kept": 4, "broken or malformed": 1, "duplicate": 1, "too small": 1}
    assert state.notes == {UNANSWERED: 1} and state.talks == 3
    before = FileSource(source)
    kept = [before.record(number) for number in (0, 1, 2, 6)]
    for streaming in (False, True):
        place = file_config(kind, str(out), streaming=streaming)
        stream, file = (StreamSource(place, 0, 1), None) if streaming else (None, FileSource(place))
        after = [stream.next() if stream else file.record(number) for number in range(4)]  # type: ignore[union-attr]
        for old, new in zip(kept, after, strict=True):
            assert (new.turns, new.system, len(new.images)) == (old.turns, old.system, len(old.images))
            sizes = [[load_image(image).size for image in record.images] for record in (old, new)]
            assert sizes[0] == sizes[1]
        assert [record.text for record in after] == ["", "", "", "anew"]
    assert (out / "sheet.jpg").is_file()
    assert "3 of those kept are conversations" in (out / "report.md").read_text()
