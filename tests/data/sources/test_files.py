"""Records from every kind of source, on disk and streamed, with broken ones among them."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from PIL import Image

from janusflow.data.sources import FileConfig, FileSource, file_config, kind_of
from janusflow.data.streams import StreamSource
from janusflow.processing.images import load_image
from tests.data.sources.kinds import COUNT, KINDS, hub, jsonl, parquet, png, sidecars, webdataset


@pytest.mark.parametrize("make", KINDS, ids=lambda make: make.__name__)
def test_pictures_with_captions_of_every_kind(make: Callable[[Path], FileConfig], tmp_path: Path) -> None:
    config = make(tmp_path)
    source = FileSource(config)
    assert source.length == COUNT
    records = [source.record(index) for index in range(COUNT)]
    assert sorted(record.text for record in records) == [f"caption {number}" for number in range(COUNT)]
    for record in records:
        red = load_image(record.images[0]).getpixel((0, 0))[0]
        assert record.text == f"caption {red // 10}"
    assert kind_of(config.path) == config.kind or config.kind == "hub"


@pytest.mark.parametrize("make", KINDS, ids=lambda make: make.__name__)
def test_streams_give_the_same_and_continue_exactly(make: Callable[[Path], FileConfig], tmp_path: Path) -> None:
    config = replace(make(tmp_path), streaming=True)
    whole = StreamSource(config, 0, 1)
    texts = [whole.next().text for _ in range(2 * COUNT + 3)]
    assert sorted(texts[:COUNT]) == [f"caption {number}" for number in range(COUNT)]
    for stop in (0, 1, COUNT - 1, COUNT, COUNT + 2):
        first = StreamSource(config, 0, 1)
        before = [first.next().text for _ in range(stop)]
        state = json.loads(json.dumps(first.state()))
        again = StreamSource(config, 0, 1)
        again.restore(state)
        assert before + [again.next().text for _ in range(len(texts) - stop)] == texts


@pytest.mark.parametrize("make", [webdataset, jsonl, hub], ids=lambda make: make.__name__)
def test_processes_share_a_stream_without_overlap(make: Callable[[Path], FileConfig], tmp_path: Path) -> None:
    config = replace(make(tmp_path), streaming=True)
    shares = [[StreamSource(config, rank, 2) for rank in (0, 1)][rank] for rank in (0, 1)]
    seen = [[stream.next().text for _ in range(COUNT // 2)] for stream in shares]
    assert sorted(seen[0] + seen[1]) == [f"caption {number}" for number in range(COUNT)]


def test_sources_that_are_not_there_or_empty(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    for config, words in (
        (file_config("parquet", str(tmp_path / "missing.parquet")), "contains no .parquet file"),
        (file_config("webdataset", str(tmp_path / "empty")), "contains no .tar file"),
        (file_config("folder", str(tmp_path / "missing")), "is not a folder"),
        (file_config("folder", str(tmp_path / "empty")), "neither a metadata.jsonl nor pictures"),
    ):
        with pytest.raises(ValueError, match=words):
            FileSource(config)
    for kind, words in (
        ("csv", "kind of source is 'csv'; choose from folder"),
        ("replay", "one that is read from files"),
    ):
        with pytest.raises(ValueError, match=words):
            file_config(kind, str(tmp_path))
    (tmp_path / "pictures").mkdir()
    (tmp_path / "pictures" / "metadata.jsonl").write_text('{"file_name": "a.png", "text": "x"}\n')
    assert FileSource(file_config("folder", str(tmp_path / "pictures"))).length == 1
    with pytest.raises(ValueError, match="is one set of pictures, without splits; split is 'test'"):
        FileSource(file_config("folder", str(tmp_path / "pictures"), split="test"))
    (tmp_path / "broken.parquet").write_bytes(b"PAR1 nothing")
    with pytest.raises(ValueError, match="cannot be read as parquet"):
        FileSource(file_config("parquet", str(tmp_path / "broken.parquet")))
    for path in (tmp_path / "nowhere", tmp_path / "empty"):
        with pytest.raises(ValueError, match="does not exist|no data of a known form"):
            kind_of(str(path))


@pytest.mark.parametrize("suffix", ["tar", "parquet"])
def test_a_damaged_file_costs_itself_and_no_other(tmp_path: Path, suffix: str) -> None:
    made = webdataset(tmp_path) if suffix == "tar" else parquet(tmp_path)
    damaged = tmp_path / f"z-damaged.{suffix}"
    damaged.write_bytes((b"PAR1" if suffix == "parquet" else b"no header") * 300)
    source = FileSource(file_config(made.kind, str(tmp_path)))
    sizes = [file.stat().st_size for file in tmp_path.glob(f"*.{suffix}") if file != damaged]
    assert source.length == COUNT + max(round(damaged.stat().st_size * COUNT / sum(sizes)), 1)
    records = [source.record(number) for number in range(COUNT)]
    assert [record.text for record in records] == [f"caption {number}" for number in range(COUNT)]
    assert load_image(records[3].images[0]).getpixel((0, 0)) == (30, 0, 0)
    with pytest.raises(ValueError, match=f"{damaged} cannot be read, all of it is left out"):
        source.record(COUNT)
    for file in tmp_path.glob(f"*.{suffix}"):
        file.write_bytes(damaged.read_bytes())
    damaged.with_stem("another").write_bytes(damaged.read_bytes())
    with pytest.raises(ValueError, match="none of the [234] files of .* can be read; the first: "):
        FileSource(file_config(made.kind, str(tmp_path)))


def test_a_relative_folder_of_pictures_with_texts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "pics").mkdir()
    Image.new("RGB", (8, 8), "red").save(tmp_path / "pics" / "a.png")
    (tmp_path / "pics" / "a.txt").write_text("a red wall")
    monkeypatch.chdir(tmp_path)
    (picture,) = FileSource(file_config("folder", "pics")).record(0).images
    assert load_image(picture).size == (8, 8)


def test_a_caption_in_another_encoding_is_one_broken_record(tmp_path: Path) -> None:
    for name, text in (("a", "caf\xe9".encode("latin-1")), ("b", b"a cup")):
        (tmp_path / f"{name}.png").write_bytes(png(1))
        (tmp_path / f"{name}.txt").write_bytes(text)
    source = FileSource(file_config("folder", str(tmp_path)))
    with pytest.raises(ValueError, match=r"a\.txt cannot be read as UTF-8"):
        source.record(0)
    assert source.record(1).text == "a cup"


@pytest.mark.parametrize("streaming", [False, True])
@pytest.mark.parametrize("suffix", ["jsonl", "parquet"])
def test_paths_are_relative_to_the_file_that_names_them(tmp_path: Path, suffix: str, streaming: bool) -> None:
    import datasets

    for number, name in enumerate(("one", "two")):
        (tmp_path / name / "images").mkdir(parents=True)
        (tmp_path / name / "images" / "0.png").write_bytes(png(number))
        row = {"image": "images/0.png", "text": f"caption {number}"}
        if suffix == "parquet":
            datasets.Dataset.from_list([row]).to_parquet(str(tmp_path / name / "rows.parquet"))
        else:
            (tmp_path / name / "rows.jsonl").write_text(json.dumps(row))
    config = file_config(suffix, str(tmp_path), streaming=streaming)
    if streaming:
        stream = StreamSource(config, 0, 1)
        records = [stream.next() for _ in range(2)]
    else:
        source = FileSource(config)
        records = [source.record(number) for number in range(source.length or 0)]
    assert [record.text for record in records] == ["caption 0", "caption 1"]
    for number, record in enumerate(records):
        assert load_image(record.images[0]).getpixel((0, 0)) == (10 * number, 0, 0)


def test_a_damaged_file_counts_for_as_many_records_as_one_of_its_size(tmp_path: Path) -> None:
    config = webdataset(tmp_path)
    whole = (tmp_path / "shard-0.tar").stat().st_size
    for name in ("shard-2.tar", "shard-3.tar"):
        (tmp_path / name).write_bytes(b"no header" * (whole // 9))
    source = FileSource(config)
    faults = 0
    for number in range(source.length or 0):
        try:
            source.record(number)
        except ValueError:
            faults += 1
    assert ((source.length or 0) - faults, faults) == (COUNT, COUNT)


@pytest.mark.parametrize("make", [webdataset, jsonl, parquet], ids=lambda make: make.__name__)
def test_a_file_with_brackets_in_its_name_is_read(make: Callable[[Path], FileConfig], tmp_path: Path) -> None:
    config = make(tmp_path)
    file, *_ = config.files()
    renamed = str(file.rename(file.with_stem("set [v2]")))
    count = FileSource(replace(config, path=renamed)).length
    assert count == (COUNT // 2 if make is webdataset else COUNT)
    assert StreamSource(replace(config, path=renamed, streaming=True), 0, 1).next().text == "caption 0"


def test_hidden_files_are_not_among_the_files_of_a_folder(tmp_path: Path) -> None:
    config = sidecars(tmp_path)
    before = config.files()
    (tmp_path / ".DS_Store").write_bytes(b"1")
    (tmp_path / "gone.png").symlink_to(tmp_path / "nowhere.png")
    assert config.files() == before and len(before) == 2 * COUNT
