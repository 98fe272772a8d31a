"""WebDataset tars as people make them: every sample counts, a malformed member costs its record, and streams resume."""

from __future__ import annotations

import bz2
import gzip
import io
import json
import lzma
import tarfile
from pathlib import Path
from typing import Any

import pytest

from janusflow.data.records import Record
from janusflow.data.sources import FileSource, file_config, kind_of, tasks_of
from janusflow.data.streams import StreamSource
from janusflow.data.tar_names import grouped
from janusflow.data.tars import read_remote
from tests.data.sources.kinds import png

TALK = [{"from": "human", "value": "<image>\nwhat?"}, {"from": "gpt", "value": "a star"}]


def tar(file: Path, members: dict[str, bytes | str]) -> Path:
    file.parent.mkdir(exist_ok=True)
    with tarfile.open(file, "w") as opened:
        for name, content in members.items():
            data = content.encode() if isinstance(content, str) else content
            entry = tarfile.TarInfo(name)
            entry.size = len(data)
            opened.addfile(entry, io.BytesIO(data))
    return file


def records(path: Path, kind: str = "webdataset") -> list[Record | str]:
    """All records of a data set, or why there is none; by index, and the same as a stream."""
    source = FileSource(file_config(kind, str(path)))
    stream = StreamSource(file_config(kind, str(path), streaming=True), 0, 1)

    def tried(take: Any, *arguments: int) -> Record | str:
        try:
            return take(*arguments)  # type: ignore[no-any-return]
        except ValueError as error:
            return str(error)

    found = [tried(source.record, number) for number in range(source.length or 0)]
    assert [tried(stream.next) for _ in found] == found
    return found


def seen(path: Path) -> list[tuple[str, int]]:
    """Texts and numbers of pictures."""
    found = []
    for record in records(path):
        assert isinstance(record, Record), record
        assert len(record.images) == 1, record.name
        found.append((record.text, record.images[0]))
    return [(text, next(n for n in range(20) if png(n) == image)) for text, image in found]


def test_every_sample_counts_whatever_its_picture_is_called(tmp_path: Path) -> None:
    members: dict[str, bytes | str] = {}
    for number in range(8):
        suffix = ("jpg", "jpg", "jpg", "jpg", "jpg", "png", "JPG", "jpeg")[number]
        members |= {f"d/{number:04d}.{suffix}": png(number), f"d/{number:04d}.txt": f"caption {number}"}
    long = "long" * 40  # such names have headers of their own
    members |= {
        f"{long}/0008.Webp": png(8),
        f"{long}/0008.caption": "caption 8",
        "._0008.txt": b"\0",
        "d/LICENSE": "free",
    }
    tar(tmp_path / "a.tar", members)
    tar(tmp_path / "b.tar", {"0009.gif": png(9), "0009.json": '{"caption": "caption 9"}'})
    assert seen(tmp_path) == [(f"caption {number}", number) for number in range(10)]


def test_an_early_sample_without_a_text_costs_itself(tmp_path: Path) -> None:
    tar(
        tmp_path / "a.tar", {"0.jpg": png(0), "1.jpg": png(1), "1.txt": "one", "2.png": png(2), "2.json": '{"text": 2}'}
    )
    assert [getattr(record, "text", record) for record in records(tmp_path)] == ["", "one", "2"]
    assert tasks_of("webdataset", str(tmp_path)) == ("understanding", "generation")
    assert FileSource(file_config("webdataset", str(tmp_path), fitting=True), "generation").length == 2


@pytest.mark.parametrize(
    ("names", "groups"),
    [
        ("a.b.jpg a.b.txt a.c.jpg a.c.txt", "a.b.jpg+a.b.txt a.c.jpg+a.c.txt"),
        ("v1.0_1.jpg v1.0_1.txt v1.0_2.png v1.0_2.json", "v1.0_1.jpg+v1.0_1.txt v1.0_2.png+v1.0_2.json"),
        ("a.jpg a.txt a.2.jpg a.2.txt", "a.jpg+a.txt a.2.jpg+a.2.txt"),
        ("a.b.jpg a.c.jpg", "a.b.jpg a.c.jpg"),
        ("a.jpg a.seg.png a.txt b.jpg b.txt", "a.jpg+a.seg.png+a.txt b.jpg+b.txt"),
        ("a.input.jpg a.caption.txt", "a.input.jpg+a.caption.txt"),
        ("a.jpg b.jpg b.txt a.txt", "a.jpg+a.txt b.jpg+b.txt"),
        ("x/a.jpg y/a.jpg x/a.txt y/a.txt", "x/a.jpg+x/a.txt y/a.jpg+y/a.txt"),
        ("x.1/a.jpg x.1/a.txt", "x.1/a.jpg+x.1/a.txt"),
        ("a.jpg a.txt a.jpg a.txt", "a.jpg+a.txt a.jpg+a.txt"),
        (".a.jpg __MACOSX/a.jpg README a.cls a.jpg", "a.jpg"),
    ],
)
def test_which_names_are_one_sample(names: str, groups: str) -> None:
    listed = names.split()
    assert ["+".join(listed[n] for n in group) for group in grouped(listed)] == groups.split()


def test_names_with_dots_give_rows_of_their_own(tmp_path: Path) -> None:
    tar(tmp_path / "a.tar", {"a.b.jpg": png(1), "a.b.txt": "one", "a.c.jpg": png(2), "a.c.txt": "two"})
    assert seen(tmp_path) == [("one", 1), ("two", 2)]
    tar(tmp_path / "a.tar", {"a.jpg": png(1), "a.mask.png": png(2), "a.txt": "one"})
    assert seen(tmp_path) == [("one", 1)]
    tar(tmp_path / "a.tar", {"a.mask.png": png(2), "a.image.png": png(1), "a.caption.txt": "one"})
    assert seen(tmp_path) == [("one", 1)]


def test_a_json_of_llava_names_another_file_or_is_the_conversation(tmp_path: Path) -> None:
    tar(
        tmp_path / "a.tar",
        {
            "0.jpg": png(0),
            "0.json": json.dumps({"id": 7, "image": "coco/000000033471.jpg", "conversations": TALK}),
            "1.jpg": png(1),
            "1.json": json.dumps(TALK),
            "2.b.jpg": png(3),
            "2.a.jpg": png(2),
            "2.json": json.dumps(
                {
                    "id": "x",
                    "images": ["2.a.jpg", "2.b.jpg"],
                    "conversations": [
                        {"from": "human", "value": "<image><image> which?"},
                        {"from": "gpt", "value": "both"},
                    ],
                }
            ),
            "3.json": json.dumps({"image": "", "conversations": [{"from": "human", "value": "hi"}, TALK[1]]}),
        },
    )
    found = records(tmp_path)
    assert [getattr(record, "images", record) for record in found] == [(png(0),), (png(1),), (png(2), png(3)), ()]
    assert all(isinstance(record, Record) and record.turns[0][1] in ("a star", "both") for record in found)


def test_a_malformed_member_costs_its_record_and_is_named(tmp_path: Path) -> None:
    file = tar(
        tmp_path / "a.tar",
        {
            "0.jpg": png(0), "0.json": '{"text": "zero", "score": 1}',
            "1.jpg": png(1), "1.json": "{broken",
            "2.jpg": png(2), "2.json": '{"text": "two", "score": "high"}',
            "3.jpg": png(3), "3.txt": b"caf\xe9",
            "4.jpg": png(4), "4.json": '{"text": "four", "score": [1]}',
        },
    )  # fmt: skip
    found = records(tmp_path)
    assert [record.text for record in found if isinstance(record, Record)] == ["zero", "two", "four"]
    assert [str(found[1]).split(" cannot")[0], str(found[3]).split(" cannot")[0]] == [
        f"{file}: 1.json",
        f"{file}: 3.txt",
    ]


def test_a_damaged_header_costs_its_member_and_not_the_rest(tmp_path: Path) -> None:
    whole = {f"{n}.{suffix}": value for n in range(4) for suffix, value in (("png", png(n)), ("txt", f"caption {n}"))}
    file = tar(tmp_path / "a.tar", whole)
    content = bytearray(file.read_bytes())
    content[2048:2058] = b"x" * 10  # the name of 1.png, so that its checksum does not fit
    file.write_bytes(bytes(content))
    found = records(tmp_path)
    assert [record.text for record in found if isinstance(record, Record) and record.images] == [
        "caption 0", "caption 2", "caption 3",
    ]  # fmt: skip
    (fault,) = [record for record in found if isinstance(record, str)]
    assert fault == f"{file}: what stands from byte 2048 on is not a tar member and is skipped"


def test_joined_tars_are_read_to_the_end(tmp_path: Path) -> None:
    one = tar(tmp_path / "one" / "a.tar", {"0.png": png(0), "0.txt": "caption 0"}).read_bytes()
    two = tar(tmp_path / "two" / "a.tar", {"0.png": png(1), "0.txt": "caption 1"}).read_bytes()
    (tmp_path / "joined.tar").write_bytes(one + two)
    assert seen(tmp_path / "joined.tar") == [("caption 0", 0), ("caption 1", 1)]


def test_global_headers_are_not_read_as_members(tmp_path: Path) -> None:
    """`git archive` writes one at the beginning."""
    archives = []
    for part in (0, 1):
        buffer = io.BytesIO()
        header = {"comment": "0" * 600 * (1 + part)}
        with tarfile.open(fileobj=buffer, mode="w", format=tarfile.PAX_FORMAT, pax_headers=header) as opened:
            for name, data in ((f"{part}.png", png(part)), (f"{part}.txt", f"caption {part}".encode())):
                entry = tarfile.TarInfo(name)
                entry.size = len(data)
                opened.addfile(entry, io.BytesIO(data))
        archives.append(buffer.getvalue())
    joined = tmp_path / "joined.tar"
    joined.write_bytes(b"".join(archives))
    expected = [("caption 0", 0), ("caption 1", 1)]
    assert seen(joined) == expected
    with joined.open("rb") as opened:
        assert [row["txt"] for row in read_remote(opened, "joined.tar")] == ["caption 0", "caption 1"]


def test_what_stands_before_a_break_is_read_by_index_too(tmp_path: Path) -> None:
    whole = {f"{n}.{suffix}": value for n in range(8) for suffix, value in (("png", png(n)), ("txt", f"caption {n}"))}
    file = tar(tmp_path / "a.tar", whole)
    file.write_bytes(file.read_bytes()[: 5 * 2048 + 700])
    source = FileSource(file_config("webdataset", str(tmp_path)))
    assert [source.record(number).text for number in range(5)] == [f"caption {number}" for number in range(5)]
    with pytest.raises(ValueError, match="a.tar cannot be read, its rest is left out: unexpected end of data"):
        source.record(5)
    assert source.length == 6


def test_a_link_in_a_tar_is_named(tmp_path: Path) -> None:
    with tarfile.open(tmp_path / "a.tar", "w") as opened:
        for name, kind in (("0.txt", tarfile.REGTYPE), ("0.png", tarfile.SYMTYPE), ("1.txt", tarfile.REGTYPE)):
            entry = tarfile.TarInfo(name)
            entry.type, entry.linkname = kind, "x.png"
            opened.addfile(entry, io.BytesIO())
    with pytest.raises(ValueError, match="0.png cannot be read: it is a link to x.png, not a file"):
        FileSource(file_config("webdataset", str(tmp_path))).record(0)


def test_tars_of_the_hub_are_read_by_the_same_rules_and_resume(tmp_path: Path) -> None:
    for part in (0, 1):
        members: dict[str, bytes | str] = {}
        for n in range(part * 4, part * 4 + 4):
            members |= {f"a.{n}.{'png' if n % 2 else 'JPG'}": png(n), f"a.{n}.txt": f"caption {n}"}
        tar(tmp_path / f"train-{part:05d}.tar", members)
    found = records(tmp_path, "hub")
    assert [getattr(record, "text", record) for record in found] == [f"caption {n}" for n in range(8)]
    config = file_config("hub", str(tmp_path), streaming=True)
    for rank, ranks in ((0, 1), (0, 2), (1, 2), (2, 3)):
        whole = StreamSource(config, rank, ranks)
        texts = [whole.next().text for _ in range(9)]
        for stop in (0, 1, 3, 5):
            first = StreamSource(config, rank, ranks)
            before = [first.next().text for _ in range(stop)]
            again = StreamSource(config, rank, ranks)
            again.restore(json.loads(json.dumps(first.state())))
            assert before + [again.next().text for _ in range(9 - stop)] == texts
    with pytest.raises(ValueError, match="has no split 'other'; its splits are train"):
        FileSource(file_config("hub", str(tmp_path), split="other"))
    assert kind_of(str(tmp_path)) == "webdataset"


def test_a_compressed_tar_says_what_it_is_and_a_plain_one_of_any_name_is_read(tmp_path: Path) -> None:
    plain = tar(tmp_path / "plain.tar", {"0.png": png(0), "0.txt": b"a star"})
    (tmp_path / "alone").mkdir()
    renamed = plain.rename(tmp_path / "alone" / "x.tar.gz")
    for place in (renamed, renamed.parent):
        kind = kind_of(str(place))
        assert (kind, FileSource(file_config(kind, str(place))).record(0).text) == ("webdataset", "a star")
    for module, name in ((gzip, "gzip"), (bz2, "bzip2"), (lzma, "xz")):
        squeezed = tmp_path / f"{name}.tar"
        squeezed.write_bytes(module.compress(renamed.read_bytes()))
        with pytest.raises(
            ValueError, match=f"{name}.tar cannot be read.*it is compressed with {name}.*run {name} -dc"
        ):
            FileSource(file_config("webdataset", str(squeezed)))
        with pytest.raises(ValueError, match=f"it is compressed with {name}"):
            StreamSource(file_config("webdataset", str(squeezed), streaming=True), 0, 1).take()
