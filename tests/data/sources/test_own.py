"""Which kind of source a path is, and which tasks its records serve."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from PIL import Image

from janusflow.data.sources import FileSource, file_config, kind_of, tasks_of
from janusflow.tinyworld.source import TinyworldConfig
from janusflow.training.config import DataConfig
from janusflow.training.config.sources import own_tasks, sources_of
from tests.data.sources.kinds import png, webdataset


def test_only_records_that_serve_a_task_are_taken_where_that_is_asked(tmp_path: Path) -> None:
    Image.new("RGB", (8, 8), "red").save(tmp_path / "a.png")
    talk = [{"from": "human", "value": "<image>\nwhat?"}, {"from": "gpt", "value": "red"}]
    rows = [
        {"image": "a.png", "conversations": talk, "text": ""},
        {"image": "a.png", "conversations": [], "text": "a red wall"},
        {"image": "a.png", "conversations": [], "text": ""},
    ]
    lines = tmp_path / "rows.jsonl"
    lines.write_text("".join(json.dumps(row) + "\n" for row in rows))
    config = file_config("jsonl", str(lines), fitting=True)
    lengths = {task: FileSource(config, task).length for task in ("understanding", "generation")}
    assert lengths == {"understanding": 2, "generation": 1}
    assert tasks_of("jsonl", str(lines)) == ("understanding", "generation")


def test_ones_own_conversations_join_understanding_alone(tmp_path: Path) -> None:
    Image.new("RGB", (8, 8), "red").save(tmp_path / "a.png")
    talk = [{"from": "human", "value": "<image>\nwhat?"}, {"from": "gpt", "value": "red"}]
    (tmp_path / "rows.jsonl").write_text(json.dumps({"image": "a.png", "conversations": talk}) + "\n")
    world = TinyworldConfig()
    given = sources_of(DataConfig(understanding=[world], generation=[world], own=str(tmp_path / "rows.jsonl")))
    assert [len(given[task]) for task in ("understanding", "generation", "text")] == [2, 1, 0]
    (tmp_path / "rows.jsonl").write_text(json.dumps({"image": "a.png", "text": ""}) + "\n")
    tasks_of.cache_clear()
    with pytest.raises(ValueError, match="contains no readable picture with a text or a conversation"):
        sources_of(DataConfig(own=str(tmp_path / "rows.jsonl")))


def test_texts_that_are_no_captions_do_not_make_a_folder_of_pictures(tmp_path: Path) -> None:
    webdataset(tmp_path)
    (tmp_path / "LICENSE.txt").write_text("free")
    assert kind_of(str(tmp_path)) == "webdataset"
    talks = tmp_path / "talks"
    (talks / "images").mkdir(parents=True)
    (talks / "images" / "a.png").write_bytes(png(1))
    (talks / "README.txt").write_text("read me")
    (talks / "talks.jsonl").write_text(json.dumps({"image": "images/a.png", "text": "black"}) + "\n")
    assert kind_of(str(talks)) == "jsonl"


def test_a_folder_with_an_array_says_how_to_give_it(tmp_path: Path) -> None:
    (tmp_path / "images").mkdir()
    (tmp_path / "train.json").write_text("[]")
    with pytest.raises(
        ValueError, match="no data of a known form.*metadata.csv.*; to read train.json, give .*train.json"
    ):
        kind_of(str(tmp_path))


def test_a_malformed_record_alone_serves_no_task(tmp_path: Path) -> None:
    """Nor does a file of nothing else end a run that has other data."""
    Image.new("RGB", (8, 8), "red").save(tmp_path / "a.png")
    talk = [{"from": "human", "value": "what?"}, {"from": "gpt", "value": "red"}]
    bad = {"image": "a.png", "conversations": [{"from": "robot", "value": "hm"}]}
    talks, broken = tmp_path / "talks.json", tmp_path / "broken.json"
    talks.write_text(json.dumps([{"image": "a.png", "conversations": talk}, bad]))
    broken.write_text(json.dumps([bad]))
    assert tasks_of("jsonl", str(talks)) == ("understanding",)
    config = file_config("jsonl", str(talks), fitting=True)
    assert FileSource(config, "understanding").length == 2, "it is still counted as broken"
    with pytest.raises(ValueError, match="contains no readable record for generation"):
        FileSource(config, "generation")
    with pytest.warns(UserWarning, match="broken.json contains no readable picture .*continues without it"):
        assert own_tasks(DataConfig(own=[str(broken), str(talks)])) == {"understanding": [("jsonl", str(talks))]}


def test_pictures_next_to_a_file_of_records_are_not_taken_for_uncaptioned_ones(tmp_path: Path) -> None:
    (tmp_path / "img").mkdir()
    Image.new("RGB", (8, 8), "red").save(tmp_path / "img" / "a.png")
    assert kind_of(str(tmp_path), captions=False) == "folder"
    (tmp_path / "dropped.jsonl").touch()  # of an earlier preparation in the same folder
    assert kind_of(str(tmp_path), captions=False) == "folder"
    (tmp_path / "talks.json").write_text("[]")
    with pytest.raises(ValueError, match=r"also contains talks.json; to read it, give .*talks\.json"):
        kind_of(str(tmp_path), captions=False)


@pytest.mark.parametrize(("suffix", "kind"), [("tar", "webdataset"), ("parquet", "parquet")])
def test_shards_are_read_next_to_their_sheet_and_not_mixed_up_with_other_pictures(
    tmp_path: Path, suffix: str, kind: str
) -> None:
    Image.new("RGB", (8, 8), "red").save(tmp_path / "sheet.jpg")
    assert kind_of(str(tmp_path), captions=False) == "folder"
    for name in (f"shard-000000.{suffix}", "dropped.jsonl", "report.json"):
        (tmp_path / name).touch()
    assert kind_of(str(tmp_path), captions=False) == kind
    Image.new("RGB", (8, 8), "red").save(tmp_path / "a.png")
    said = rf"also contains shard-000000.{suffix}; to read it, give --kind {kind}; for the pictures .* --kind folder"
    with pytest.raises(ValueError, match=said):
        kind_of(str(tmp_path), captions=False)


def test_files_are_not_written_into_the_data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data, link = tmp_path / "data", tmp_path / "link"
    data.mkdir()
    link.symlink_to(data, target_is_directory=True)
    monkeypatch.chdir(data)
    for path, out in ((data, data), (".", "out"), (link, data / "run" / "a"), (data, link / "out")):
        with pytest.raises(ValueError, match=f"{out} lies inside {path}, so its files would be read as data"):
            file_config("folder", str(path)).check_out(Path(out))
    for out in ("../out", tmp_path / "data2"):
        file_config("folder", str(data)).check_out(Path(out))
