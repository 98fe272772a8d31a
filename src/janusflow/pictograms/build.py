"""Build the data set: read packages, plan pictures, and write shards of rendered pictures one by one.

The settings determine everything: the pictures, their order, backgrounds, captions and conversations. A shard is
written completely or not at all, so a stopped run continues with the missing shards, and the result is the same.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor, as_completed
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from multiprocessing import get_context
from pathlib import Path
from random import Random
from typing import Any

from janusflow.arguments import nearest, quoted, whole_number
from janusflow.extras import require
from janusflow.files import read_json, write_text
from janusflow.pictograms.captions import PLAIN, captions
from janusflow.pictograms.catalogue import LICENCES, STYLES
from janusflow.pictograms.download import Downloads
from janusflow.pictograms.evaluation import write_evaluation
from janusflow.pictograms.held_out import HeldOut, read_held_out
from janusflow.pictograms.overview import write_sheet
from janusflow.pictograms.pictures import PHOSPHOR, Collection, Picture, collect, tinted
from janusflow.pictograms.questions import Conversations
from janusflow.pictograms.render import BACKGROUNDS, TINTS
from janusflow.pictograms.report import write_report
from janusflow.pictograms.shards import HELD_OUT, Row, digests_of, made_of, write_shard
from janusflow.pipelines.sheet import make_folder
from janusflow.progress import progress_bar

SIZES = (64, 128)
DEFAULT_STYLES = tuple(name for name in STYLES if name != "openclipart")
FORMAT = 3  # version of the written files; a data set of another version is not continued
SETTINGS = "build.json"


@dataclass(frozen=True)
class BuildConfig:
    """Configuration of a data set.

    Attributes:
        size: side of the pictures in pixels, 64 or 128.
        styles: names of `STYLES`.
        limit: number of pictures, chosen at random; None for all.
        variants: rows per picture, each with another caption and conversation; the first has a white background.
            Tinted Phosphor icons and pictures with a skin tone have one row each: there are many of the same drawing.
        colored: share of the other rows, and of Phosphor's training rows, whose background is not white.
        tints: combinations of weight and color per Phosphor icon; each is one row.
        shard_size: pictures per shard.
        seed: seed of all random choices except the held-out combinations.
        workers: number of processes that render.
    """

    size: int = 64
    styles: tuple[str, ...] = DEFAULT_STYLES
    limit: int | None = None
    variants: int = 3
    colored: float = 0.5
    tints: int = 4
    shard_size: int = 1000
    seed: int = 0
    workers: int = 2

    def __post_init__(self) -> None:
        if self.size not in SIZES:
            raise ValueError(f"size is {self.size}; expected {' and '.join(map(str, SIZES))}")
        for name in self.styles:
            if name not in STYLES:
                near = nearest(name, list(STYLES))
                hint = f"did you mean {near[0]}? " if near else ""
                raise ValueError(f"style is {quoted(name)}; {hint}expected {', '.join(STYLES)}")
        if not self.styles:
            raise ValueError(f"no style is given; expected {', '.join(STYLES)}")
        whole_number("limit", 1 if self.limit is None else self.limit)
        whole_number("tints", self.tints, most=len(TINTS) * 6 - 1)
        for name in ("variants", "shard_size", "workers"):
            whole_number(name, getattr(self, name))

    def settings(self) -> dict[str, Any]:
        """Return the settings that determine the result, as stored in `build.json`."""
        given = {name: value for name, value in asdict(self).items() if name != "workers"}
        return {"format": FORMAT, **given, "styles": sorted(self.styles)}


@dataclass(frozen=True)
class Plan:
    """Rows to render.

    Attributes:
        shards: training rows by shard.
        held_out: rows of the held-out pictures.
        hidden: all held-out pictures, including those beyond the limit.
    """

    shards: list[list[Row]]
    held_out: list[Row]
    hidden: list[Picture]


def build(out: Path, config: BuildConfig, downloads: Downloads) -> dict[str, Any]:
    """Build a data set in a folder, or continue one.

    Args:
        out: folder for `shard-NNNNNN.parquet` (training), `held_out.feather`, `held_out.json`, lists of prompts,
            licences, a report and `sheet.png`.
        config: see `BuildConfig`.
        downloads: where packages come from.

    Returns:
        The report.

    Raises:
        ValueError: if a package is missing, or the folder contains a data set with other settings.
    """
    require("building pictograms", "pyarrow", "resvg_py", extra="pictograms")
    _continue(make_folder(out), config)
    held_out = read_held_out()
    with progress_bar("reading packages", None):
        collection = collect(config.styles, downloads)
    plan = planned(collection, config, held_out)
    _render(out, plan, config)
    write_text(out / "held_out.json", held_out.as_json())
    shutil.copytree(LICENCES, out / "licences", dirs_exist_ok=True)
    write_evaluation(out, plan.shards, plan.held_out, seed=config.seed)
    write_sheet(out, seed=config.seed)
    return write_report(out, config.settings(), collection)


def planned(collection: Collection, config: BuildConfig, held_out: HeldOut) -> Plan:
    """Return the rows of all shards as a function of the settings."""
    pictures = collection.pictures()
    if PHOSPHOR in config.styles:
        icons = collection.icons()
        pictures += tinted(icons, number=config.tints, seed=config.seed, wanted=held_out.tints())
    pictures.sort(key=lambda picture: picture.id)
    talks = Conversations([picture.subject for picture in pictures])
    Random(f"order/{config.seed}").shuffle(pictures)
    hidden = [picture for picture in pictures if held_out.kind(picture)]
    pictures = pictures[: config.limit]
    train = [picture for picture in pictures if not held_out.kind(picture)]
    parts = [train[start : start + config.shard_size] for start in range(0, len(train), config.shard_size)]
    shards = []
    for number, part in enumerate(parts):
        rows = [row for picture in part for row in _rows(picture, talks, config)]
        Random(f"shard/{config.seed}/{number}").shuffle(rows)
        shards.append(rows)
    left = [picture for picture in pictures if held_out.kind(picture)]
    kept = [_row(picture, 0, talks, config, held_out.kind(picture)) for picture in sorted(left, key=lambda one: one.id)]
    return Plan(shards, kept, hidden)


def _rows(picture: Picture, talks: Conversations, config: BuildConfig) -> Iterator[Row]:
    for variant in range(1 if picture.tint or picture.subject.tones else config.variants):
        yield _row(picture, variant, talks, config)


def _row(picture: Picture, variant: int, talks: Conversations, config: BuildConfig, held_out: str = "") -> Row:
    """Return a row as a function of the seed, picture and variant number; held-out rows have a white background."""
    rng = Random(f"row/{config.seed}/{picture.id}/{variant}")
    background = PLAIN
    if (variant or picture.tint) and not held_out and rng.random() < config.colored:
        others = [name for name in BACKGROUNDS if name != PLAIN and (not picture.tint or picture.tint not in name)]
        background = rng.choice(others)
    wordings = captions(picture, rng, background)
    text = wordings[0] if held_out else rng.choice(wordings)
    return Row(picture, variant, background, text, tuple(wordings), talks.talk(picture, rng, background), held_out)


def _continue(out: Path, config: BuildConfig) -> None:
    """Check that a folder is new or belongs to a run with these settings.

    Raises:
        ValueError: if the folder has other settings, or shards that were not written by a build.
    """
    file, settings = out / SETTINGS, json.loads(json.dumps(config.settings()))
    if file.is_file():
        before = read_json(file)
        other = [name for name in settings if not isinstance(before, dict) or before.get(name) != settings[name]]
        if other:
            made = ", ".join(f"{name}={before.get(name)}" for name in other) if isinstance(before, dict) else "others"
            raise ValueError(f"{out} was made with {made}; use the same settings or another --out")
    elif any(out.glob("*.parquet")):
        raise ValueError(f"{out} has Parquet files but no {SETTINGS}; use an empty folder as --out")
    write_text(file, json.dumps(settings, indent=1) + "\n")


def _render(out: Path, plan: Plan, config: BuildConfig) -> None:
    """Write the missing shards in several processes."""
    jobs = [(out / f"shard-{number:06d}.parquet", rows) for number, rows in enumerate(plan.shards)]
    jobs.append((out / HELD_OUT, plan.held_out))
    left = [(file, rows) for file, rows in jobs if not file.is_file()]
    digests = digests_of(plan.hidden, config.size) if left else frozenset()
    tasks = [(file, rows, config.size, frozenset() if file.name == HELD_OUT else digests) for file, rows in left]
    with ExitStack() as stack:
        advance = stack.enter_context(progress_bar("rendering", len(jobs), done=len(jobs) - len(left)))
        if config.workers == 1 or len(left) < 2:
            for task in tasks:
                render_shard(*task)
                advance()
            return
        spawn = get_context("spawn")
        pool = stack.enter_context(ProcessPoolExecutor(min(config.workers, len(left)), mp_context=spawn))
        for done in as_completed([pool.submit(render_shard, *task) for task in tasks]):
            done.result()
            advance()


def render_shard(file: Path, rows: list[Row], size: int, hidden: frozenset[bytes]) -> None:
    """Render and write one shard; this runs in each process."""
    write_shard(file, made_of(rows, size, hidden))
