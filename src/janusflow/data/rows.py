"""Opens the files of a data set: `tars.py` for WebDataset, `folders.py` for folders of pictures, `jsonlines.py` for
JSON lines and arrays, and Hugging Face `datasets` for Parquet and hub ids.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal

from janusflow.data.folders import read_folder, visible_files
from janusflow.data.jsonlines import AS_LINES, FAULT, FOLDER, JsonLines, is_array, is_lines, read_lines
from janusflow.data.tars import Tars
from janusflow.offline import cached_if_unreachable, first_line
from janusflow.progress import without_others

BUILDERS = {"parquet": "parquet", "jsonl": "json"}  # names that `datasets` has for them
SUFFIXES = {
    "webdataset": (".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tar.xz", ".tar.zst"),  # for errors about compressed ones
    "parquet": (".parquet",),
    "jsonl": (".jsonl",),
}


@dataclass(frozen=True)
class SourceConfig:
    """One source of data.

    Attributes:
        kind: tinyworld, webdataset, parquet, jsonl, folder, hub, or replay: what the model itself draws before the run.
        path: a file, a folder, a pattern, or a hub id; not used by tinyworld. Of replay: a file of prompts, or
            "tinyworld" for those of the tiny world, whose wrong pictures are left out.
        weight: its turn among the sources of its task.
        split: of a hub's data set, or of a folder whose folders of pictures are named after splits (`data/folders.py`);
            "all" reads all of them.
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
        crop: of its pictures to generate, as `samples.crop`, which holds where this is not given.
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
    crop: Literal["random", "center", "pad"] | None = None
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
    path = Path(config.path).expanduser().absolute()
    if path.is_dir():
        found = [file for file in visible_files(path) if has_suffix(file, config.kind)]
    else:
        found = sorted(path.parent.glob(path.name))
    if not found:
        raise ValueError(f"{config.path} contains no {SUFFIXES[config.kind][0]} file")
    return found


def has_suffix(file: Path, kind: str) -> bool:
    """Whether a file has a suffix of a kind in `SUFFIXES`, in upper or lower case."""
    return file.name.lower().endswith(SUFFIXES[kind])


def check_place(config: SourceConfig) -> None:
    """A quick look whether files are where a source says, before anything is loaded.

    Raises:
        ValueError: if they are not.
    """
    if config.kind in SUFFIXES:
        files_of(config)
    elif config.kind == "folder" and not Path(config.path).expanduser().is_dir():
        raise ValueError(f"{config.path} is not a folder")


@without_others(reads_data=True)
def open_rows(config: SourceConfig, files: Sequence[Path] | None = None) -> tuple[Any, Path]:
    """The rows of a data set, or of only some of its files, and the folder that its paths are relative to where a row
    does not name another one (`FOLDER`).

    Raises:
        ValueError: if they cannot be read.
    """
    path = Path(config.path).expanduser().absolute()
    if config.kind == "folder":
        if not path.is_dir():
            raise ValueError(f"{config.path} is not a folder")
        return read_folder(path, config.split), path
    if config.kind == "hub":
        tars = remote_tars(config.path, config.split)
        return (_downloaded(tars) if tars else _undecoded(_load(config, path=config.path))), Path()
    if config.kind not in SUFFIXES:
        known = "tinyworld, webdataset, parquet, jsonl, folder, hub"
        raise ValueError(f"kind of source is {config.kind!r}; known are {known}")
    found = list(files or files_of(config))
    folder = found[0].parent
    if config.kind == "webdataset":
        try:
            return Tars(found), folder
        except (OSError, ValueError) as error:
            several = f"none of the {len(found)} files of {config.path} can be read; the first"
            what = several if len(found) > 1 else f"{config.path} cannot be read as webdataset"
            raise ValueError(f"{what}: {error}") from error
    if config.kind == "jsonl" and all(is_lines(file) or is_array(file) for file in found):
        return _by_lines(found, config), folder
    options = {"path": BUILDERS[config.kind], "data_files": {config.split: [str(file) for file in found]}}
    scattered = len({file.parent for file in found}) > 1 and not config.streaming
    try:
        rows = _readable(found, config) if scattered else _load(config, **options)
    except _unreadable() as error:
        if scattered:
            raise
        told = f"{config.path} cannot be read as {config.kind}: {first_line(error)}"
        told += f"; {AS_LINES}" if config.kind == "jsonl" else ""
        if config.streaming:
            raise ValueError(told) from error
        if len(found) == 1:
            raise ValueError(f"{told}; streaming=true reads what comes before the damage") from error
        rows = _readable(found, config)
    return _undecoded(rows), folder


def _load(config: SourceConfig, **options: Any) -> Any:
    """What `datasets` reads.

    Raises:
        ValueError: of a hub id, if it cannot be read.
    """
    import datasets

    why = ""
    try:
        with cached_if_unreachable(options["path"] if config.kind == "hub" else Path.cwd()) as why:
            return datasets.load_dataset(**options, split=config.split, streaming=config.streaming)
    except _unreadable() as error:
        if config.kind != "hub":
            raise
        raise ValueError(f"{config.path} cannot be read as hub: {why or first_line(error)}") from error


def _undecoded(rows: Any) -> Any:
    """The rows with their pictures as files have them."""
    import datasets

    raw = datasets.Image(decode=False)
    for name, feature in (rows.features or {}).items():
        if isinstance(feature, datasets.Image):
            rows = rows.cast_column(name, raw)
        elif isinstance(feature, datasets.List) and isinstance(feature.feature, datasets.Image):
            rows = rows.cast_column(name, datasets.List(raw))
    return rows


@lru_cache(maxsize=8)
def remote_tars(path: str, split: str) -> tuple[str, ...]:
    """The addresses of a split's tars, where a hub id is a data set in WebDataset's form; none where it is not.

    Raises:
        ValueError: if it cannot be read, or has no such split.
    """
    import datasets
    from datasets.packaged_modules.webdataset.webdataset import WebDataset

    why = ""
    try:
        with cached_if_unreachable(path) as why:
            builder = datasets.load_dataset_builder(path)
    except _unreadable() as error:
        raise ValueError(f"{path} cannot be read as hub: {why or first_line(error)}") from error
    if not isinstance(builder, WebDataset):
        return ()
    splits = builder.config.data_files or {}
    if split not in splits:
        raise ValueError(f"{path} has no split {split!r}; its splits are {', '.join(map(str, splits))}")
    return tuple(str(file) for file in splits[split])


def _downloaded(tars: Sequence[str]) -> Tars:
    import datasets

    return Tars([Path(file) for file in datasets.DownloadManager().download(list(tars))])


def _unreadable() -> tuple[type[Exception], ...]:
    """What `datasets` and pyarrow raise for files that they cannot read."""
    import datasets
    import pyarrow

    damaged = (LookupError, TypeError, AttributeError, StopIteration, RecursionError)  # of an odd structure
    return (OSError, ValueError, *damaged, pyarrow.lib.ArrowException, datasets.exceptions.DatasetGenerationError)


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
            lost.append((file, f"{file} cannot be read, all of it is left out: {first_line(error)}"))
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
            raise ValueError(f"{config.path} cannot be read as JSON: {error}") from error
    return datasets.IterableDataset.from_generator(read_lines, gen_kwargs={"files": files})
