"""Records from every kind of source, on disk and streamed, with broken ones among them."""

from __future__ import annotations

import io
import json
import tarfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from janusflow.data.records import read_row
from janusflow.data.sources import FileConfig, FileSource, file_config, kind_of, tasks_of
from janusflow.data.streams import StreamSource
from janusflow.processing.images import load_image
from janusflow.tinyworld.source import TinyworldConfig
from janusflow.training.config import DataConfig
from janusflow.training.config.sources import own_tasks, sources_of

COUNT = 6


def png(number: int) -> bytes:
    """A picture of one colour that tells its number."""
    buffer = io.BytesIO()
    Image.new("RGB", (20, 16), (10 * number, 0, 0)).save(buffer, format="PNG")
    return buffer.getvalue()


def webdataset(folder: Path) -> FileConfig:
    for shard in range(2):
        with tarfile.open(folder / f"shard-{shard}.tar", "w") as tar:
            for number in range(shard * COUNT // 2, (shard + 1) * COUNT // 2):
                parts = {"png": png(number), "txt": f"caption {number}".encode(), "json": b'{"origin": "made"}'}
                for suffix, data in parts.items():
                    entry = tarfile.TarInfo(f"{number:04d}.{suffix}")
                    entry.size = len(data)
                    tar.addfile(entry, io.BytesIO(data))
    return file_config("webdataset", str(folder))


def parquet(folder: Path) -> FileConfig:
    import datasets

    rows = [{"image": {"bytes": png(n), "path": None}, "text": f"caption {n}"} for n in range(COUNT)]
    features = datasets.Features({"image": datasets.Image(), "text": datasets.Value("string")})
    datasets.Dataset.from_list(rows, features=features).to_parquet(str(folder / "rows.parquet"))
    return file_config("parquet", str(folder / "rows.parquet"))


def jsonl(folder: Path) -> FileConfig:
    lines = []
    for number in range(COUNT):
        (folder / f"{number}.png").write_bytes(png(number))
        lines.append(json.dumps({"image": f"{number}.png", "text": f"caption {number}"}))
    (folder / "rows.jsonl").write_text("\n".join(lines))
    return file_config("jsonl", str(folder / "rows.jsonl"))


def sidecars(folder: Path) -> FileConfig:
    for number in range(COUNT):
        (folder / f"{number}.png").write_bytes(png(number))
        (folder / f"{number}.txt").write_text(f"caption {number}\n")
    return file_config("folder", str(folder))


def metadata(folder: Path) -> FileConfig:
    lines = []
    for number in range(COUNT):
        (folder / f"{number}.png").write_bytes(png(number))
        lines.append(json.dumps({"file_name": f"{number}.png", "text": f"caption {number}"}))
    (folder / "metadata.jsonl").write_text("\n".join(lines))
    return file_config("folder", str(folder))


def hub(folder: Path) -> FileConfig:
    """Two files in a folder, which `datasets` opens as it opens a repository of the hub."""
    import datasets

    features = datasets.Features({"image": datasets.Image(), "text": datasets.Value("string")})
    for part in (0, 1):
        numbers = range(part * COUNT // 2, (part + 1) * COUNT // 2)
        rows = [{"image": {"bytes": png(n), "path": None}, "text": f"caption {n}"} for n in numbers]
        table = datasets.Dataset.from_list(rows, features=features)
        table.to_parquet(str(folder / f"train-{part:05d}-of-00002.parquet"))
    return file_config("hub", str(folder))


KINDS = [webdataset, parquet, jsonl, sidecars, metadata, hub]


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
    both = {"json": {"text": "from json", "rewritten": " in clearer words "}, "png": png(1)}
    assert read_row(both, "row", Path()).text == "from json"
    assert read_row(both, "row", Path()).rewritten == "in clearer words"
    assert read_row({"text": "x", "rewritten": None}, "row", Path()).rewritten == ""


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
        ({"text": "x", "rewritten": 3}, "^row has rewritten 3; expected the text in other words"),
    ],
)
def test_malformed_rows(row: dict, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        read_row(row, "row", Path())


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


def test_a_relative_folder_of_pictures_with_texts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "pics").mkdir()
    Image.new("RGB", (8, 8), "red").save(tmp_path / "pics" / "a.png")
    (tmp_path / "pics" / "a.txt").write_text("a red wall")
    monkeypatch.chdir(tmp_path)
    (picture,) = FileSource(file_config("folder", "pics")).record(0).images
    assert load_image(picture).size == (8, 8)


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


def test_a_caption_in_another_encoding_is_one_broken_record(tmp_path: Path) -> None:
    for name, text in (("a", "caf\xe9".encode("latin-1")), ("b", b"a cup")):
        (tmp_path / f"{name}.png").write_bytes(png(1))
        (tmp_path / f"{name}.txt").write_bytes(text)
    source = FileSource(file_config("folder", str(tmp_path)))
    with pytest.raises(ValueError, match=r"a\.txt cannot be read as UTF-8"):
        source.record(0)
    assert source.record(1).text == "a cup"


def test_an_empty_text_gives_way_to_the_next_column(tmp_path: Path) -> None:
    row = {"text": "", "caption": "a star", "image": png(1)}
    assert read_row(row, "row", tmp_path).text == "a star"


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


def test_a_folder_with_an_array_says_how_to_give_it(tmp_path: Path) -> None:
    (tmp_path / "images").mkdir()
    (tmp_path / "train.json").write_text("[]")
    with pytest.raises(
        ValueError, match="no data of a known form.*metadata.csv.*; to read train.json, give .*train.json"
    ):
        kind_of(str(tmp_path))


def test_a_conversation_that_is_a_text_is_named(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="row: its conversation is 'hello'; expected a list of messages"):
        read_row({"conversations": "hello"}, "row", tmp_path)


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
