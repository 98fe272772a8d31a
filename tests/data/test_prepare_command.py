"""`janusflow data prepare`: captions by a model, and what it prints."""

from __future__ import annotations

import json
import shutil
import threading
from pathlib import Path

import pytest
from typer.testing import CliRunner

from janusflow.cli import app
from janusflow.data.sources import FileSource, file_config
from tests.data.conftest import picture
from tests.evaluation.judges.server import Handler, Server, reply


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


def test_nothing_kept_is_an_error_that_says_why(folder: Path, tmp_path: Path) -> None:
    done = CliRunner().invoke(app, ["data", "prepare", str(folder), "--out", str(tmp_path / "out")])
    told = " ".join(done.output.split())
    assert done.exit_code == 2
    assert "0 of 25 pictures kept" in told and "most are 'too small' (--min-side is 256)" in told
    assert (tmp_path / "out" / "report.md").is_file()


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
