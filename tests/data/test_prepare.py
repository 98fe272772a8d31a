"""Preparing data: what is dropped and why, shards that training reads, and runs that continue."""

from __future__ import annotations

import json
import shutil
import threading
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

from janusflow.cli import app, training
from janusflow.data import prepare as module
from janusflow.data.prepare import PrepareConfig, prepare
from janusflow.data.records import UNANSWERED
from janusflow.data.sources import FileSource, file_config
from janusflow.data.streams import StreamSource
from janusflow.processing.images import load_image
from tests.evaluation.judges.test_open_judge import Handler, Server, reply

CAPTION = "A plain picture. It has one colour. Nothing else is in it."


def picture(number: int, size: tuple[int, int] = (64, 48)) -> Image.Image:
    """A picture of its own."""
    pixels = np.random.default_rng(number).integers(0, 256, (6, 8, 3), dtype=np.uint8)
    return Image.fromarray(pixels).resize(size, Image.Resampling.NEAREST)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Twenty good pictures, and one of every kind that is dropped."""
    place = tmp_path / "raw"
    place.mkdir()
    for number in range(20):
        picture(number).save(place / f"good-{number:02d}.png")
        (place / f"good-{number:02d}.txt").write_text(CAPTION)
    picture(3).resize((128, 96), Image.Resampling.BICUBIC).save(place / "x-duplicate.jpg", quality=80)
    picture(50, (20, 60)).save(place / "x-small.png")
    picture(51, (300, 40)).save(place / "x-wide.png")
    (place / "x-broken.png").write_bytes(b"broken")
    picture(52).save(place / "x-nocaption.png")
    for name in ("x-duplicate", "x-small", "x-wide", "x-broken"):
        (place / f"{name}.txt").write_text(CAPTION)
    return place


def settings(**changes: object) -> PrepareConfig:
    return PrepareConfig(**{"min_side": 32, "max_aspect": 3.0, "shard_size": 6, **changes})  # type: ignore[arg-type]


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


@pytest.mark.parametrize("streaming", [False, True])
def test_a_run_that_was_stopped_anywhere_continues_to_the_same(
    folder: Path, tmp_path: Path, streaming: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = file_config("folder", str(folder), streaming=streaming)
    prepare(source, tmp_path / "whole", settings())
    for function in ("write_shard", "save_state"):
        for stop in (1, 2, 3):
            out, calls, original = tmp_path / f"{function}-{stop}", 0, getattr(module, function)

            def stopped(*args: object, stop: int = stop, original: object = original) -> None:
                nonlocal calls
                calls += 1
                if calls == stop:
                    raise KeyboardInterrupt
                original(*args)  # type: ignore[operator]

            with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
                patch.setattr(module, function, stopped)
                prepare(source, out, settings())
            prepare(source, out, settings())
            for file in (tmp_path / "whole").iterdir():
                if file.name != "state.json":
                    assert (out / file.name).read_bytes() == file.read_bytes(), file.name


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


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        (b"[" * 100_000, "state.json is damaged: it is nested too deeply"),
        (b'{"next": ', "state.json is damaged: "),
        (b"\xff", "state.json is damaged: it is not UTF-8"),
        ({"shards": -3}, "state.json is damaged: shards: .* greater than or equal to 0"),
        ({"words": {}}, "state.json is damaged: words: "),
        ({"next": 2**31}, "state.json is damaged: next is 2147483648, but counts has"),
        ({"counts": {"kept": -1}}, "state.json: counts is damaged: kept: "),
        ({"hashes": [1]}, "state.json is damaged: hashes"),
        ({"hashes": ["0g:"]}, "state.json is damaged: hashes"),
        ({"config": None}, "state.json is damaged: config: "),
        ({"dropped": 10**9}, "dropped.jsonl is shorter than"),
        ({"stream": {"epoch": 0}}, "state.json: stream is damaged: part: Field required"),
    ],
)
def test_a_damaged_state_is_refused_in_one_sentence(
    folder: Path, tmp_path: Path, changes: bytes | dict[str, object], words: str
) -> None:
    source, file = file_config("folder", str(folder)), tmp_path / "state.json"
    prepare(source, tmp_path, settings())
    before = sorted(tmp_path.iterdir())
    content = json.dumps({**json.loads(file.read_text()), **changes}) if isinstance(changes, dict) else ""
    file.write_bytes(content.encode() if isinstance(changes, dict) else changes)
    with pytest.raises(ValueError, match=words) as error:
        prepare(source, tmp_path, settings())
    assert str(tmp_path) in str(error.value) and "\n" not in str(error.value) and len(str(error.value)) < 400
    assert sorted(tmp_path.iterdir()) == before


def test_the_command_captions_with_the_shipped_model(folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "shards"
    arguments = ["data", "prepare", str(folder), "--out", str(out), "--min-side", "32", "--max-aspect", "3"]
    result = CliRunner().invoke(app, [*arguments, "--caption", "tiny", "--device", "cpu"])
    assert result.exit_code == 0, result.output
    assert "21 of 25 pictures kept" in result.output
    rows = FileSource(file_config("webdataset", str(out)))
    assert all(" on a " in rows.record(index).text for index in range(21))
    shutil.rmtree(out)
    refused = CliRunner().invoke(app, [*arguments, "--caption", "tiny", "--endpoint", "http://x"])
    assert refused.exit_code == 2
    assert "not both" in refused.output
    refused = CliRunner().invoke(app, [*arguments, "--endpoint", "localhost"])
    assert refused.exit_code == 2 and "expected an address such as https" in refused.output


def test_the_command_captions_with_a_model_behind_an_address(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "secret")
    out = tmp_path / "shards"
    arguments = ["data", "prepare", str(folder), "--out", str(out), "--min-side", "32", "--max-aspect", "3"]
    with Server(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        server.answers, server.asked = [(200, reply("a far star"))], []
        result = CliRunner().invoke(app, [*arguments, "--endpoint", server.url, "--endpoint-model", "far"])
        assert result.exit_code == 0, result.output
        server.answers = [(401, {"error": {"message": "no"}})]
        shutil.rmtree(out)
        refused = CliRunner().invoke(app, [*arguments, "--endpoint", server.url])
        server.shutdown()
    assert "21 of 25 pictures kept" in result.output
    asked = server.asked[0]
    assert (asked["model"], asked["key"], asked["max_tokens"]) == ("far", "Bearer secret", 256)
    assert asked["messages"][0]["content"][0]["image_url"]["url"].startswith("data:image/png;base64,")
    assert refused.exit_code == 2 and "the key in OPENAI_API_KEY is not accepted" in refused.output


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


def test_a_run_is_not_continued_with_another_captioner_or_scorer(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(training, "_captioner", lambda *_: lambda pictures: ["a caption"] * len(pictures))
    arguments = ["data", "prepare", str(folder), "--out", str(tmp_path / "out"), "--min-side", "32"]
    own = {"--endpoint": "http://x", "--endpoint-model": "m", "--question": "What?", "--scorer": "math:sqrt"}
    monkeypatch.setattr(training, "load_function", lambda *_: lambda image: 1.0)

    def run(options: dict[str, str]) -> object:
        return CliRunner().invoke(app, [*arguments, *(word for pair in options.items() for word in pair)])

    assert run(own).exit_code == 0  # type: ignore[attr-defined]
    assert run(own).exit_code == 0  # type: ignore[attr-defined]
    for name in [*own, "--caption"]:
        refused = run({**own, name: "http://other"})
        assert refused.exit_code == 2, name  # type: ignore[attr-defined]
        assert f"was made with {name}=" in " ".join(refused.output.split())  # type: ignore[attr-defined]
    prepare(file_config("folder", str(folder)), tmp_path / "plain", settings())
    with pytest.raises(ValueError, match="was made with captioner=False;"):
        prepare(
            file_config("folder", str(folder)),
            tmp_path / "plain",
            settings(),
            captioner=lambda pictures: ["a caption"] * len(pictures),
        )


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


def test_nothing_kept_is_an_error_that_says_why(folder: Path, tmp_path: Path) -> None:
    done = CliRunner().invoke(app, ["data", "prepare", str(folder), "--out", str(tmp_path / "out")])
    told = " ".join(done.output.split())
    assert done.exit_code == 2
    assert "0 of 25 pictures kept" in told and "most are 'too small' (--min-side is 256)" in told
    assert (tmp_path / "out" / "report.md").is_file()


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


def test_what_is_not_read_at_all_is_named_too_and_the_command_sums_up(folder: Path, tmp_path: Path) -> None:
    (folder / "x.heic").write_bytes(b"0")
    arguments = ["data", "prepare", str(folder), "--out", str(tmp_path / "out"), "--min-side", "32"]
    done = CliRunner().invoke(app, arguments)
    told = " ".join(done.output.split())
    assert done.exit_code == 0, told
    assert (
        "20 of 25 pictures kept" in told
        and "1 too small" in told
        and "files that are not records: 1 not a picture" in told
    )
    assert "dropped: 1 duplicate, " in told
    assert "dropped.jsonl" in told and "sheet.jpg" in told
    assert "leaves out 25% of the area of the captioned pictures; crop=pad keeps them whole" in told
    rows = [json.loads(line) for line in (tmp_path / "out" / "dropped.jsonl").read_text().splitlines()]
    assert {"record": str(folder / "x.heic"), "reason": "not a picture"} in rows


def test_a_summary_names_no_duplicates_too_and_counts_conversations_as_such(tmp_path: Path) -> None:
    picture(1).save(tmp_path / "1.png")
    talk = [{"from": "human", "value": "what?"}, {"from": "gpt", "value": "a star"}]
    bad = {"image": "1.png", "conversations": [{"from": "robot", "value": "hm"}]}
    (tmp_path / "talks.json").write_text(json.dumps([{"image": "1.png", "conversations": talk}, bad]))
    out = tmp_path / "out"
    arguments = ["data", "prepare", str(tmp_path / "talks.json"), "--out", str(out), "--min-side", "32"]
    done = CliRunner().invoke(app, arguments)
    assert done.exit_code == 0, done.output
    assert "1 of 2 conversations kept" in done.output and "dropped: 0 duplicates, 1 broken" in done.output
    assert (out / "report.md").read_text().startswith("# 1 of 2 conversations kept, 1 shard\n")
    assert "words per caption" not in (out / "report.md").read_text()
    source = json.loads((out / "report.json").read_text())["settings"]["source"]
    assert source.keys() == {"kind", "path", "split", "streaming"}
    (row,) = map(json.loads, (out / "dropped.jsonl").read_text().splitlines())
    assert row["record"] == f"{tmp_path / 'talks.json'}:2"
    refused = CliRunner().invoke(app, [*arguments, "--split", "test"])
    assert refused.exit_code == 2 and "--split is for folders" in refused.output


def test_the_command_reports_the_splits_that_it_leaves_out(tmp_path: Path) -> None:
    for number, split in enumerate(("train", "test")):
        (tmp_path / "raw" / split).mkdir(parents=True)
        picture(number).save(tmp_path / "raw" / split / "a.png")
        (tmp_path / "raw" / split / "metadata.csv").write_text("file_name,text\na.png,a star\n")
    arguments = ["data", "prepare", str(tmp_path / "raw"), "--min-side", "32", "--out"]
    done = CliRunner().invoke(app, [*arguments, str(tmp_path / "train")])
    assert "read split 'train'; 'test' (1 record) is left out, choose with --split" in done.output
    assert "Splits: read split 'train'; 'test' (1 record) is left out." in (tmp_path / "train/report.md").read_text()
    done = CliRunner().invoke(app, [*arguments, str(tmp_path / "both"), "--split", "all"])
    assert "2 of 2 pictures kept" in done.output and "left out" not in done.output


def test_the_state_does_not_grow_with_the_records(folder: Path, tmp_path: Path) -> None:
    source = file_config("folder", str(folder))
    for size in (1, 20):
        prepare(source, tmp_path / str(size), settings(shard_size=size))
    sizes = [(tmp_path / str(size) / "state.json").stat().st_size for size in (1, 20)]
    assert abs(sizes[0] - sizes[1]) < 8
    assert len((tmp_path / "1" / "digests.log").read_text().splitlines()) == 20


def test_a_run_of_an_earlier_version_continues(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It had the digests in its state."""
    source, out, calls = file_config("folder", str(folder)), tmp_path / "out", 0

    def stopped(*args: object) -> None:
        nonlocal calls
        calls += 1
        if calls == 3:
            raise KeyboardInterrupt
        module.write_shard_(*args)  # type: ignore[attr-defined]

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(module, "write_shard_", module.write_shard, raising=False)
        patch.setattr(module, "write_shard", stopped)
        prepare(source, out, settings())
    state, log = json.loads((out / "state.json").read_text()), out / "digests.log"
    state["hashes"] = sorted(log.read_text().splitlines()[:12])
    del state["digests"]
    (out / "state.json").write_text(json.dumps(state))
    log.unlink()
    prepare(source, out, settings())
    prepare(source, tmp_path / "whole", settings())
    assert (out / "report.json").read_bytes() == (tmp_path / "whole" / "report.json").read_bytes()
    assert sorted(log.read_text().split()) == sorted((tmp_path / "whole" / "digests.log").read_text().split())


def test_damaged_digests_are_refused(folder: Path, tmp_path: Path) -> None:
    prepare(file_config("folder", str(folder)), tmp_path, settings())
    log = tmp_path / "digests.log"
    log.write_text(f"?{log.read_text()[1:]}")
    with pytest.raises(ValueError, match=r"digests.log is damaged: a line is not the digest of a record"):
        prepare(file_config("folder", str(folder)), tmp_path, settings())
    log.write_text("")
    with pytest.raises(ValueError, match=r"digests.log is shorter than the \d+ bytes"):
        prepare(file_config("folder", str(folder)), tmp_path, settings())


def test_a_run_is_not_continued_when_records_or_shards_are_lost(folder: Path, tmp_path: Path) -> None:
    scored: list[int] = []

    def score(image: Image.Image) -> float:
        scored.append(1)
        if len(scored) == 4:
            raise KeyboardInterrupt
        return 1.0

    def run() -> None:
        prepare(file_config("folder", str(folder)), tmp_path / "out", settings(shard_size=2), scorer=score)

    with pytest.raises(KeyboardInterrupt):
        run()
    lost = sorted(folder.rglob("*.png"))[0]
    content = lost.read_bytes()
    lost.unlink()
    with pytest.raises(ValueError, match=r"was begun with \d+ records, and .* has \d+ now; put them back"):
        run()
    lost.write_bytes(content)
    shard = next((tmp_path / "out").glob("shard-*"))
    content = shard.read_bytes()
    shard.unlink()
    with pytest.raises(ValueError, match=r"1 shards, but 0 files are there"):
        run()
    shard.write_bytes(content)
    run()
