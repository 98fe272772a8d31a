"""Read WebDataset tars member by member: nothing is copied, every sample counts, and columns need no common type.

`tar_names.py` groups members into samples.
"""

from __future__ import annotations

import json
import tarfile
from array import array
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path, PurePosixPath
from typing import IO, Any

import numpy as np

from janusflow.data.jsonlines import FAULT, FOLDER, NAME
from janusflow.data.tar_names import PICTURES, TEXTS, fields_of, grouped, is_known, key_of, suffix_of

COMPRESSED = {  # first bytes
    b"\x1f\x8b": ("gzip", "gzip -dc"),
    b"BZh": ("bzip2", "bzip2 -dc"),
    b"\xfd7zXZ\0": ("xz", "xz -dc"),
    b"\x28\xb5\x2f\xfd": ("zstd", "zstd -dc"),
}
NAMED_PICTURES = ("image", "images")  # fields of a .json that name its pictures
BLOCK = tarfile.BLOCKSIZE


@dataclass(frozen=True)
class Member:
    """A file in a tar; `offset` is that of its header, and `read` returns its content.

    A member without a name stands for bytes from `offset` on that are not a member.
    """

    name: str
    offset: int
    read: Callable[[], bytes]


class Tars:
    """The samples of tars, by index. Only the offsets of their members are kept in memory.

    Bytes in a file that are not a tar member are a row whose `FAULT` names them. A file that breaks off has such rows
    at the end, one for each sample of mean size that fits into the lost bytes.

    Args:
        files: tars, in the order of their rows.

    Raises:
        ValueError: if none of the files contains a sample and some are damaged.
    """

    def __init__(self, files: Sequence[Path]) -> None:
        self.files = tuple(files)
        offsets, self._bounds, self._home = array("q"), array("q", [0]), array("q")
        lost: list[tuple[str, int]] = []  # fault of a file that breaks off, and bytes lost with it
        read = 0
        for number, file in enumerate(self.files):
            samples, end, said = _scan(file)
            for sample in samples:
                offsets.extend(sample)
                self._bounds.append(len(offsets))
                self._home.append(number)
            read += end
            if said:
                what = "its rest" if samples else "all of it"
                lost.append((f"{file} cannot be read, {what} is left out: {said}", file.stat().st_size - end))
        self._offsets = np.array(offsets, dtype=np.int64)
        self.intact = len(self._home)
        if lost and not self.intact:
            raise ValueError(lost[0][0])
        each = max(read // max(self.intact, 1), 1)
        self.faults = [said for said, size in lost for _ in range(max(round(size / each), 1))]
        self._chosen: np.ndarray | None = None

    def __len__(self) -> int:
        return self.intact + len(self.faults) if self._chosen is None else len(self._chosen)

    def __getitem__(self, index: int) -> dict[str, Any]:
        index = index if self._chosen is None else int(self._chosen[index])
        if index >= self.intact:
            return {FAULT: self.faults[index - self.intact]}
        file = self.files[self._home[index]]
        with file.open("rb") as stream:
            offsets = self._offsets[self._bounds[index] : self._bounds[index + 1]]
            return row_of([_member_at(stream, int(offset)) for offset in offsets], str(file), file.parent)

    def __iter__(self) -> Iterator[dict[str, Any]]:
        return (self[index] for index in range(len(self)))

    def select(self, indices: Sequence[int]) -> Tars:
        """Select rows by index."""
        chosen = Tars.__new__(Tars)
        vars(chosen).update(vars(self))
        numbers = np.arange(len(self)) if self._chosen is None else self._chosen
        chosen._chosen = numbers[np.asarray(indices, dtype=np.int64)]
        return chosen

    def in_order(self, first: int, every: int) -> Iterator[dict[str, Any]]:
        """Yield every `every`-th row from `first` on, as a stream reads them.

        Raises:
            OSError: at the end, if a file breaks off.
        """
        for index in range(first, self.intact, every):
            yield self[index]
        if self.faults:
            raise OSError(self.faults[0].partition(" is left out: ")[2])


def read_remote(opened: IO[bytes], name: str) -> Iterator[dict[str, Any]]:
    """Yield the rows of a tar that is read once from front to back; the members of a sample must be adjacent.

    Raises:
        OSError: at the end, if the tar breaks off.
    """
    run: list[Member] = []
    try:
        for member in _members(opened):
            if run and (not member.name or key_of(member.name) != key_of(run[0].name) or member.name in _names(run)):
                yield from _rows(run, name)
                run = []
            if not member.name:
                yield row_of([member], name, Path())
            elif is_known(member.name):
                content = member.read()
                run.append(Member(member.name, member.offset, partial(bytes, content)))
    except tarfile.TarError as error:  # the last sample may be incomplete
        raise OSError(str(error)) from error
    yield from _rows(run, name)


def row_of(members: Sequence[Member], file: str, folder: Path) -> dict[str, Any]:
    """Convert a sample into a row: `image` or `images`, its texts, and the content of its .json; or only its `FAULT`.

    Pictures in the tar replace those that the .json names. A .json that is a list is the conversation.

    Args:
        members: members of the sample.
        file: name of the tar, for messages.
        folder: folder of the tar, which paths in a .json start from.
    """
    if not members[0].name:
        return {FAULT: f"{file}: what stands from byte {members[0].offset} on is not a tar member and is skipped"}
    fields = dict(zip(fields_of(_names(members)), members, strict=True))
    row: dict[str, Any] = {}
    texts: dict[str, str] = {}
    for field, member in fields.items():
        try:
            if suffix_of(field) == "json":
                row = {**row, **_metadata(member.read())}
            elif suffix_of(field) in TEXTS:
                texts[suffix_of(field)] = member.read().decode("utf-8-sig")
        except (ValueError, RecursionError, OSError, tarfile.TarError) as error:
            return {FAULT: f"{file}: {member.name} cannot be read: {error}"}
    row |= texts
    pictures = _chosen({field: member for field, member in fields.items() if suffix_of(field) in PICTURES}, row)
    if pictures:
        row = {key: value for key, value in row.items() if key not in NAMED_PICTURES}
        try:
            contents = [member.read() for member in pictures]
        except (OSError, tarfile.TarError) as error:
            return {FAULT: f"{file}: {pictures[0].name} cannot be read: {error}"}
        row |= {"image": contents[0]} if len(contents) == 1 else {"images": contents}
    return {**row, NAME: f"{file}: {members[0].name.rpartition('.')[0]}", FOLDER: str(folder)}


def _metadata(content: bytes) -> dict[str, Any]:
    try:
        value = json.loads(content)
    except RecursionError as error:
        raise ValueError("it is nested too deeply") from error
    if isinstance(value, list):
        return {"conversations": value}
    if isinstance(value, str):
        return {"text": value}
    if not isinstance(value, dict):
        raise ValueError(f"it holds {value!r:.40}, not a JSON object or a conversation")
    return value


def _chosen(pictures: dict[str, Member], row: dict[str, Any]) -> list[Member]:
    """Return a sample's pictures: those that the .json lists, if it lists several and they are there.

    Otherwise, it is the one without a further dot, else the only `image.*` or `images.*`, else all.
    """
    listed: list[Any] = next((row[name] for name in NAMED_PICTURES if isinstance(row.get(name), list)), [])
    if len(listed) > 1:
        by_name = {PurePosixPath(member.name).name: member for member in pictures.values()}
        wanted = [PurePosixPath(str(place)).name for place in listed]
        if all(name in by_name for name in wanted):
            return [by_name[name] for name in wanted]
        if len(listed) == len(pictures):
            return list(pictures.values())
    plain = sorted((field for field in pictures if "." not in field), key=PICTURES.index)
    named = [field for field in pictures if field.partition(".")[0] in NAMED_PICTURES]
    chosen = plain[:1] or (named if len(named) == 1 else list(pictures))
    return [pictures[field] for field in chosen]


def compression(file: Path) -> str:
    """Return how a file is compressed, by its first bytes, and how to decompress it; empty for any other file."""
    with file.open("rb") as opened:
        start = opened.read(max(map(len, COMPRESSED)))
    for mark, (name, command) in COMPRESSED.items():
        if start.startswith(mark):
            plain = f"{file.name.split('.')[0]}-plain.tar"
            return f"it is compressed with {name}, and tars are read uncompressed: run {command} {file.name} > {plain}"
    return ""


def _scan(file: Path) -> tuple[list[list[int]], int, str]:
    """Return where the members of every sample begin, the byte up to which the tar can be read, and why not further."""
    if said := compression(file):
        return [], 0, said
    members: list[Member] = []
    said, size = "", file.stat().st_size
    try:
        with file.open("rb") as opened:
            for member in _members(opened):
                members.append(Member(member.name, member.offset, bytes))  # `read` keeps its header in memory
    except (tarfile.TarError, OSError) as error:
        said, size = str(error), members[-1].offset if members else 0
    if members and not said and not members[-1].name:  # nothing can be read after it
        said, size = "its end is not a tar member", members.pop().offset
    samples = [(group[0], [members[number].offset for number in group]) for group in grouped(_names(members))]
    samples += [(number, [member.offset]) for number, member in enumerate(members) if not member.name]
    found = [offsets for _, offsets in sorted(samples)]
    if said and members and members[-1].offset == size:  # that member breaks off, so its sample is incomplete
        found = [offsets for offsets in found if size not in offsets]
    return found, size, said


def _members(opened: IO[bytes]) -> Iterator[Member]:
    """Yield the files in a tar, or in joined tars, in order, and a nameless member for bytes that are not a member."""
    end = 0
    with tarfile.open(fileobj=opened, mode="r:", ignore_zeros=True) as tar:
        while (info := tar.next()) is not None:
            tar.members = []  # type: ignore[attr-defined]  # else all headers stay in memory
            yield from _gap(opened, end, info.offset)
            end = tar.offset
            if not info.isdir():
                yield Member(info.name, info.offset, partial(_content, tar, info))
        yield from _gap(opened, end, opened.seek(0, 2))


def _gap(opened: IO[bytes], start: int, end: int) -> Iterator[Member]:
    """Yield a nameless member if there is anything but zeros and global headers between two members."""
    if start >= end:
        return
    place = opened.tell()
    while start < end:
        opened.seek(start)
        content = opened.read(min(end - start, 1 << 20))
        if not content.strip(b"\0"):
            start += 1 << 20
            continue
        start += (len(content) - len(content.lstrip(b"\0"))) // BLOCK * BLOCK
        opened.seek(start)
        if not (header := _global_header(opened.read(BLOCK))):
            yield Member("", start, bytes)
            break
        start += header
    opened.seek(place)


def _global_header(block: bytes) -> int:
    """Return the size of the global pax header (as `git archive` writes) that begins with a block; 0 if none does."""
    try:
        info = tarfile.TarInfo.frombuf(block, tarfile.ENCODING, "surrogateescape")
    except tarfile.HeaderError:
        return 0
    return BLOCK + -(-info.size // BLOCK) * BLOCK if info.type == tarfile.XGLTYPE and info.size >= 0 else 0


def _member_at(stream: IO[bytes], offset: int) -> Member:
    """Return the member whose header begins at an offset, or a nameless one if there is no header."""
    stream.seek(offset)
    try:
        tar = tarfile.open(fileobj=stream, mode="r:")  # noqa: SIM115 (the stream is closed by its owner)
        info = tar.next()
    except tarfile.TarError:
        info = None
    return Member("", offset, bytes) if info is None else Member(info.name, offset, partial(_content, tar, info))


def _content(tar: tarfile.TarFile, info: tarfile.TarInfo) -> bytes:
    file = tar.extractfile(info) if info.isfile() else None
    if file is None:
        raise OSError(f"it is a link to {info.linkname}, not a file")
    return file.read()


def _rows(run: list[Member], name: str) -> Iterator[dict[str, Any]]:
    for group in grouped(_names(run)):
        yield row_of([run[number] for number in group], name, Path())


def _names(members: Sequence[Member]) -> list[str]:
    return [member.name for member in members]
