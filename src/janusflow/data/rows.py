"""Opens the files of a data set: Hugging Face `datasets` for WebDataset tars, Parquet, folders of pictures and hub ids,
`jsonlines.py` for JSON lines.
"""

from __future__ import annotations

import tarfile
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from janusflow.data.jsonlines import AS_LINES, FAULT, FOLDER, METADATA, JsonLines, is_lines, read_lines
from janusflow.progress import without_others

PICTURES = (".png", ".jpg", ".jpeg", ".webp")
BUILDERS = {"webdataset": "webdataset", "parquet": "parquet", "jsonl": "json"}  # names that `datasets` has for them
SUFFIXES = {"webdataset": "*.tar", "parquet": "*.parquet", "jsonl": "*.jsonl"}


@dataclass(frozen=True)
class SourceConfig:
    """One source of data.

    Attributes:
        kind: tinyworld, webdataset, parquet, jsonl, folder, hub, or replay: what the model itself draws before the run.
        path: a file, a folder, a pattern, or a hub id; not used by tinyworld. Of replay: a file of prompts, or
            "tinyworld" for those of the tiny world, whose wrong pictures are left out.
        weight: its turn among the sources of its task.
        split: of a hub's data set, or of a folder that `datasets` reads (one with several metadata files).
        streaming: read one after the other without an index: nothing is copied, and the order is that of the files.
        shares: of tinyworld's kinds of scenes; by default all alike.
        questions: of tinyworld: at most so many about one scene, at least half as many; they share its tokens.
        described: of tinyworld: share of the pictures to draw whose text is the full description of the scene.
        bold: of tinyworld: share of the scenes in which what the prompt leaves open is bold (`tinyworld/bold.py`).
        ordered: of tinyworld: share of the pictures to draw that show two objects of which the prompt does not say who
            stands where, in an order that follows from the first one; with `anchor` the copy is told that order.
        unnamed: of tinyworld: share of the pictures to draw whose prompt says how two objects stand, but in place of
            what one or both of them are only "shape"; with `anchor` the copy is told what they are.
        composed: of tinyworld: share of the pictures to draw that show what the prompt leaves open where and as whoever
            takes a picture would (`tinyworld/composed.py`); `described` and `bold` are shares of the others.
        spoiled: of tinyworld: share of the pictures to read that lie under tiles of random colours, up to nothing else
            (`tinyworld/spoiled.py`).
        anchor: what the model itself says of these samples before the run is learned, not what they hold: nothing that
            they are about is forgotten. Of a picture to draw whose record has a `rewritten` text, what it says to that:
            the text is drawn as the clearer one was (`training/anchor.py`).
        fitting: leave records out that do not serve the task; by default they count as broken.
        images, guidance: of replay: pictures drawn in all, and the weight of their prompts.
        teacher: of replay: another model, whose pictures from the same noise are learned in place of the model's own.
        judge, min_score: of replay with prompts of one's own: `module:function` of prompt and picture that gives a
            score; pictures below the least one are left out.
    """

    kind: str
    path: str = ""
    weight: float = 1.0
    split: str = "train"
    streaming: bool = False
    shares: dict[str, float] = field(default_factory=dict)
    questions: int = 4
    described: float = 0.0
    bold: float = 0.0
    ordered: float = 0.0
    unnamed: float = 0.0
    composed: float = 0.0
    spoiled: float = 0.0
    anchor: bool = False
    fitting: bool = False
    images: int = 960
    guidance: float = 1.5
    teacher: str = ""
    judge: str = ""
    min_score: float = 0.5


def files_of(config: SourceConfig) -> list[Path]:
    """The files that a source of a kind in `SUFFIXES` is read from.

    Raises:
        ValueError: if there are none.
    """
    path, pattern = Path(config.path).expanduser().absolute(), SUFFIXES[config.kind]
    found = sorted(path.rglob(pattern)) if path.is_dir() else sorted(path.parent.glob(path.name))
    if not found:
        raise ValueError(f"{config.path}: no {pattern} files are there")
    return found


def check_place(config: SourceConfig) -> None:
    """A quick look whether files are where a source says, before anything is loaded.

    Raises:
        ValueError: if they are not.
    """
    if config.kind in SUFFIXES:
        files_of(config)
    elif config.kind == "folder" and not Path(config.path).expanduser().is_dir():
        raise ValueError(f"{config.path} is no folder")


@without_others()
def open_rows(config: SourceConfig, files: Sequence[Path] | None = None) -> tuple[Any, Path]:
    """The rows of a data set, or of some of its files alone, and the folder that its paths are relative to where a row
    does not name another one (`FOLDER`).

    Raises:
        ValueError: if they cannot be read.
    """
    import datasets

    path = Path(config.path).expanduser().absolute()
    options: dict[str, Any] = {"split": config.split, "streaming": config.streaming}
    if config.kind in SUFFIXES:
        found = list(files or files_of(config))
        folder = found[0].parent
        if config.kind == "jsonl" and all(is_lines(file) for file in found):
            return _by_lines(found, config), folder
        options.update(path=BUILDERS[config.kind], data_files={config.split: [str(file) for file in found]})
    elif config.kind == "folder":
        if not path.is_dir():
            raise ValueError(f"{config.path} is no folder")
        captioned = not any(path.glob("metadata.*"))
        if captioned or list(path.rglob("metadata.*")) == [path / METADATA]:
            if config.split != "train":
                raise ValueError(f"{config.path} is one set of pictures, without splits; split is {config.split!r}")
            return _captioned(path, config) if captioned else _by_lines([path / METADATA], config), path
        options.update(path="imagefolder", data_dir=str(path))
        folder = path
    elif config.kind == "hub":
        options["path"], folder = config.path, Path()
    else:
        known = "tinyworld, webdataset, parquet, jsonl, folder, hub"
        raise ValueError(f"kind of source is {config.kind!r}; known are {known}")
    scattered = config.kind in SUFFIXES and len({file.parent for file in found}) > 1 and not config.streaming
    try:
        rows = _readable(found, config) if scattered else datasets.load_dataset(**options)
    except _unreadable() as error:
        if scattered:
            raise
        told = f"{config.path} cannot be read as {config.kind}: {str(error).splitlines()[0]}"
        told += f"; {AS_LINES}" if config.kind == "jsonl" else ""
        if config.kind not in SUFFIXES or config.streaming:
            raise ValueError(told) from error
        if len(found) == 1:
            raise ValueError(f"{told}; with streaming what stands before the damage is read") from error
        rows = _readable(found, config)
    for name, feature in (rows.features or {}).items():
        if isinstance(feature, datasets.Image):
            rows = rows.cast_column(name, datasets.Image(decode=False))
    return rows, folder


def _unreadable() -> tuple[type[Exception], ...]:
    """What `datasets` raises for files that it cannot read."""
    import datasets

    return (OSError, ValueError, tarfile.TarError, datasets.exceptions.DatasetGenerationError)


def _readable(files: Sequence[Path], config: SourceConfig) -> Any:
    """The rows of the files that can be read, each with its `FOLDER`. In the place of one that cannot there are as many
    rows as a readable one of its size has, whose `FAULT` names it: so what is lost counts for what it is.

    Raises:
        ValueError: if none can.
    """
    import datasets

    parts, lost, size = [], [], 0
    for file in files:
        options = {"path": BUILDERS[config.kind], "data_files": {config.split: [str(file)]}, "split": config.split}
        try:
            rows = datasets.load_dataset(**options)
        except _unreadable() as error:
            lost.append((file, f"{file} cannot be read, all of it is left out: {str(error).splitlines()[0]}"))
            continue
        parts.append(rows.add_column(FOLDER, [str(file.parent)] * len(rows)))
        size += file.stat().st_size
    if not parts:
        raise ValueError(f"none of the {len(files)} files of {config.path} can be read; the first: {lost[0][1]}")
    each = max(size // max(sum(map(len, parts)), 1), 1)  # bytes of a row
    faults = [{FAULT: fault} for file, fault in lost for _ in range(max(round(file.stat().st_size / each), 1))]
    return datasets.concatenate_datasets([*parts, *([datasets.Dataset.from_list(faults)] if faults else [])])


def _by_lines(files: list[Path], config: SourceConfig) -> Any:
    import datasets

    if not config.streaming:
        try:
            return JsonLines(files)
        except OSError as error:
            raise ValueError(f"{config.path} cannot be read as JSON lines: {error}") from error
    return datasets.IterableDataset.from_generator(read_lines, gen_kwargs={"files": files})


def _captioned(path: Path, config: SourceConfig) -> Any:
    """Pictures, each with the text of the .txt file beside it, if there is one."""
    import datasets

    pictures = [file for file in sorted(path.rglob("*")) if file.suffix.lower() in PICTURES]
    texts = [file.with_suffix(".txt") for file in pictures]
    if not pictures:
        raise ValueError(f"{config.path} holds neither a metadata.jsonl nor pictures with a .txt file beside each")
    rows = datasets.Dataset.from_list(
        [{"image": str(picture), **_caption(text)} for picture, text in zip(pictures, texts, strict=True)]
    )
    return rows.to_iterable_dataset() if config.streaming else rows


def _caption(file: Path) -> dict[str, str | None]:
    """The text of a file, or the fault of one that cannot be read."""
    try:
        return {"text": file.read_text(encoding="utf-8") if file.is_file() else "", FAULT: None}
    except (OSError, UnicodeDecodeError) as error:
        return {"text": "", FAULT: f"{file} cannot be read as UTF-8 text: {error}"}
