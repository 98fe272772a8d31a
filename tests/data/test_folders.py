"""Folders of pictures: metadata in every form, with splits or without, and nothing lost silently."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from janusflow.data.folders import other_splits, unused_files
from janusflow.data.sources import FileSource, file_config, kind_of, tasks_of
from janusflow.data.streams import StreamSource
from tests.data.sources.kinds import png


def pictures(folder: Path, *names: str) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for number, name in enumerate(names):
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_bytes(png(number))


def texts(path: Path, **options: Any) -> list[str]:
    """By index, and the same as a stream."""
    source = FileSource(file_config("folder", str(path), **options))
    found = [source.record(number).text for number in range(source.length or 0)]
    stream = StreamSource(file_config("folder", str(path), streaming=True, **options), 0, 1)
    assert [stream.next().text for _ in found] == found
    return found


@pytest.fixture
def splits(tmp_path: Path) -> Path:
    """Metadata in train/ and in test/, as `datasets` documents it."""
    for split, words in (("train", ["a star", 2024]), ("test", ["a cross"])):
        pictures(tmp_path / split, *(f"{n}.png" for n in range(len(words))))
        rows = [{"file_name": f"{n}.png", "text": word} for n, word in enumerate(words)]
        (tmp_path / split / "metadata.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return tmp_path


def test_metadata_of_splits_is_read_and_split_chooses(splits: Path) -> None:
    assert kind_of(str(splits)) == "folder"
    assert texts(splits) == texts(splits, split="train") == ["a star", "2024"]
    assert texts(splits, split="test") == ["a cross"]
    assert sorted(texts(splits, split="all")) == ["2024", "a cross", "a star"]
    assert other_splits(splits, "train") == "read split 'train'; 'test' (1 record) is left out"
    assert other_splits(splits, "all") == other_splits(splits / "train", "train") == ""
    with pytest.raises(ValueError, match="has no split 'validation'; its splits are test, train: give split=NAME"):
        FileSource(file_config("folder", str(splits), split="validation"))
    assert tasks_of("folder", str(splits)) == ("understanding", "generation")


def test_a_folder_of_captions_with_splits_is_read_by_split_too(tmp_path: Path) -> None:
    for split in ("training", "val"):
        pictures(tmp_path / split, "0.png")
        (tmp_path / split / "0.txt").write_text(split)
    assert (texts(tmp_path), texts(tmp_path, split="validation")) == (["training"], ["val"])


def test_one_folder_named_after_a_split_among_others_is_a_subject(tmp_path: Path) -> None:
    for subject in ("train", "car"):
        pictures(tmp_path / subject, "0.png")
        (tmp_path / subject / "0.txt").write_text(subject)
    assert texts(tmp_path) == ["car", "train"]
    assert other_splits(tmp_path, "train") == ""


@pytest.mark.parametrize("extra", ["stray.png", ".thumbs/0.png", ".thumbs/metadata.jsonl", "old/0.png", ".x.png"])
@pytest.mark.parametrize("rename", [str.lower, str.upper, str.capitalize])
def test_nothing_else_in_a_folder_merges_its_splits(splits: Path, extra: str, rename: Callable[[str], str]) -> None:
    for split in ("train", "test"):
        (splits / split).rename(splits / rename(split))
    pictures(splits, extra)
    hidden = extra.startswith(".")
    assert texts(splits) == ["a star", "2024"]
    assert texts(splits, split=rename("test")) == ["a cross"]
    left = "'test' (1 record) is" if hidden else "'test' (1 record) and 1 picture outside the splits are"
    assert other_splits(splits, "Train") == f"read split 'train'; {left} left out"
    expected = {} if hidden else {Path(extra).name: "outside the splits"}
    assert {file.name: why for file, why in unused_files(splits, "train")} == expected
    assert sorted(texts(splits, split="all")) == ["2024", "a cross", "a star"]


def test_two_folders_of_one_split_are_read_together(splits: Path) -> None:
    pictures(splits / "Training", "0.png")
    (splits / "Training" / "0.txt").write_text("a ring")
    assert sorted(texts(splits)) == ["2024", "a ring", "a star"]


def test_hidden_files_are_never_data(tmp_path: Path) -> None:
    pictures(tmp_path, ".hidden.png", ".thumbs/0.png", "0.png")
    (tmp_path / ".thumbs" / "0.txt").write_text("a thumbnail")
    (tmp_path / ".thumbs" / "x.jsonl").write_text("{}")
    with pytest.raises(ValueError, match="contains no data of a known form"):
        kind_of(str(tmp_path))
    (tmp_path / "0.txt").write_text("a star")
    assert texts(tmp_path) == ["a star"]
    with pytest.raises(ValueError, match="contains no .jsonl file"):
        FileSource(file_config("jsonl", str(tmp_path)))


def test_captions_are_found_whatever_the_case_of_suffixes(tmp_path: Path) -> None:
    pictures(tmp_path, "0.png", "1.PNG", "2.JPG")
    for name in ("0.TXT", "1.txt", "2.Txt"):
        (tmp_path / name).write_text(name)
    assert kind_of(str(tmp_path)) == "folder"
    assert texts(tmp_path) == ["0.TXT", "1.txt", "2.Txt"]
    assert list(unused_files(tmp_path, "train")) == []
    (tmp_path / "METADATA.CSV").write_text("file_name,text\n0.png,a star\n")
    assert texts(tmp_path) == ["a star", "1.txt", "2.Txt"]


def test_every_row_of_a_csv_counts_and_every_caption_is_a_text(tmp_path: Path) -> None:
    words = ["a star", "123", "007", "NA", "None", 'she said "hi",\nand left', "", "1.50", "caf\xe9"]
    pictures(tmp_path, *(f"{n}.png" for n in range(len(words))))
    lines = ["file_name,text", *(f'{n}.png,"{word.replace(chr(34), chr(34) * 2)}"' for n, word in enumerate(words))]
    (tmp_path / "metadata.csv").write_text("\ufeff" + "\r\n".join(lines), encoding="utf-8")
    assert texts(tmp_path) == words


def test_a_csv_row_of_another_length_is_one_broken_record(tmp_path: Path) -> None:
    pictures(tmp_path, "0.png", "1.png")
    (tmp_path / "metadata.csv").write_text("file_name,text\n0.png,a star, and a cross\n1.png,a cross\n")
    source = FileSource(file_config("folder", str(tmp_path)))
    with pytest.raises(ValueError, match=r"metadata.csv: 0.png has more or fewer cells than the first line"):
        source.record(0)
    assert source.record(1).text == "a cross"


def test_metadata_in_other_forms_and_several_folders(tmp_path: Path) -> None:
    import datasets

    pictures(tmp_path, "a/0.png", "b/0.png", "c/0.png")
    (tmp_path / "a" / "metadata.json").write_text(json.dumps([{"file_name": "0.png", "text": "a", "image": "x.png"}]))
    datasets.Dataset.from_list([{"file_name": "0.png", "text": 7}]).to_parquet(str(tmp_path / "b" / "metadata.parquet"))
    (tmp_path / "c" / "0.txt").write_text("c")
    assert texts(tmp_path) == ["a", "7", "c"]
    assert FileSource(file_config("folder", str(tmp_path))).record(0).images == (tmp_path / "a" / "0.png",)


def test_metadata_at_the_root_holds_for_folders_named_after_splits(tmp_path: Path) -> None:
    pictures(tmp_path, "train/0.png", "test/0.png")
    rows = [{"file_name": f"{split}/0.png", "text": split} for split in ("train", "test")]
    (tmp_path / "metadata.jsonl").write_text("\n".join(map(json.dumps, rows)))
    assert texts(tmp_path) == ["train", "test"]


def test_metadata_without_file_names_is_refused(tmp_path: Path) -> None:
    pictures(tmp_path, "0.png")
    (tmp_path / "metadata.csv").write_text("name,text\n0.png,a star\n")
    with pytest.raises(ValueError, match="metadata.csv has no column file_name; its columns are name, text"):
        FileSource(file_config("folder", str(tmp_path)))
    (tmp_path / "metadata.csv").write_text("file_name,text\n0.png,a star\n,a cross\n")
    source = FileSource(file_config("folder", str(tmp_path)))
    assert source.record(0).text == "a star"
    with pytest.raises(ValueError, match="row 2 has no file_name"):
        source.record(1)


def test_files_that_no_record_comes_from_are_named(tmp_path: Path) -> None:
    pictures(tmp_path, "0.png", "1.png", "2.PNG")
    (tmp_path / "metadata.jsonl").write_text('{"file_name": "0.png", "text": "a star"}\n')
    (tmp_path / "2.txt").write_text("a cross")
    (tmp_path / "3.heic").write_bytes(b"0")
    (tmp_path / "README.txt").write_text("read me")
    (tmp_path / ".DS_Store").write_bytes(b"0")
    assert {file.name: why for file, why in unused_files(tmp_path, "train")} == {
        "1.png": "not in the metadata",
        "3.heic": "not a picture",
        "README.txt": "not a picture",
    }
