"""The benchmark protocol: items to generate or answer, a verdict on each output, and scores from all verdicts.

A benchmark is one file in `benchmarks/` with a subclass of `Benchmark`, listed in `evaluation/registry.py`. It knows
its data and rules; `evaluation/run/` generates, asks, resumes and shards, and `evaluation/reports/` reports.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from inspect import signature
from mimetypes import guess_type
from pathlib import Path
from typing import Any, ClassVar

from PIL import Image

from janusflow.evaluation.judges.asks_judge import AsksJudge
from janusflow.evaluation.judges.judge import NotJudgedError as NotJudgedError
from janusflow.evaluation.score_sample import ScoreSample, over
from janusflow.processing.images import ImageSource

Output = Image.Image | str  # a generated picture, or an answer


@dataclass(frozen=True)
class Item:
    """One task for the model: a picture to generate or a question to answer.

    Attributes:
        key: unique name of the output, in characters that a file name may have ("/" makes folders).
        prompt: prompt of the picture to generate, or the question.
        images: paths or pictures of the question, in order.
        seed: seed of the noise of a picture to generate.
        group: items of one group (the pictures of a prompt, both questions of an MME picture) stay together when the
            bootstrap resamples; "" for an item of its own.
        system: system prompt of a question; None for the model's own.
        data: JSON data for the verdict. A benchmark that overrides `produce` may also show parts of it to the model;
            see `Benchmark.also_shown`.
    """

    key: str
    prompt: str
    images: tuple[ImageSource, ...] = ()
    seed: int = 0
    group: str = ""
    system: str | None = ""
    data: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Row:
    """A judged item.

    Attributes:
        item: the item.
        output: the answer, or the picture's path in the run's folder.
        verdict: the judge's verdict as JSON: "score" (a number, higher is better), and what explains it.
    """

    item: Item
    output: str
    verdict: Mapping[str, Any]

    @property
    def score(self) -> float:
        """Score of the verdict."""
        return float(self.verdict["score"])


@dataclass(frozen=True)
class NoSettings:
    """Settings of a benchmark that has none."""


class Benchmark(AsksJudge, ABC):
    """A benchmark over data on disk.

    Args:
        data: folder of the official files; None if the benchmark creates its own data.
        settings: instance of `Settings`.

    Attributes:
        name: name on the command line.
        title: name in reports.
        draws: whether the items are pictures to generate; otherwise they are questions.
        asks: whether some items are questions and others pictures to generate.
        Settings: frozen dataclass of the options (`--set key=value`), every field with a default.
        judged_by: kind of model that `Settings.judge` must name; "" if none is needed.
        judging: names of settings that only affect verdicts; a run with others keeps its outputs and is judged again.
        judging_models: names of settings that select transformers models (folders or hub names); "" selects none.
        main: name of the score to quote.
        published: published scores by model, the paper's first. Names are those of `scores`, or another name if it is
            unknown how the score was computed.
        source: where the data comes from and which files are expected, for error messages.
        bootstrap: whether intervals come from resampled items (not for distances between whole sets).
        lower_is_better: whether a lower value of `main` is better.
        defaults: decoding arguments to use unless others are given.
        official_items: number of items in the whole official set; 0 if it is unknown or depends on settings.
        caveat: what a reader must know before comparing a report with published figures.
        swept: name of the score that a sweep over generation options shows; "" for `main`.
        swept_lower_is_better: whether a lower value of `swept` is better.
        for_sweeps: settings of such a sweep unless the user gives them; they leave out what generation does not affect.
        whole_groups: whether `--limit` keeps the items of a group together.
        threads: number of verdicts requested at once.
        limited: whether only some items are chosen; `check_items` then looks for their pictures instead of `items`.
        out: folder of the run; set before anything is generated, judged or scored.
    """

    name: ClassVar[str]
    title: ClassVar[str]
    draws: ClassVar[bool]
    asks: ClassVar[bool] = False
    Settings: ClassVar[type] = NoSettings
    judging: ClassVar[tuple[str, ...]] = ("judge", "threads", "device")
    main: ClassVar[str] = "overall"
    published: ClassVar[Mapping[str, Mapping[str, float]]] = {}
    source: ClassVar[str] = ""
    bootstrap: ClassVar[bool] = True
    lower_is_better: ClassVar[bool] = False
    defaults: ClassVar[Mapping[str, Any]] = {}
    official_items: ClassVar[int] = 0
    caveat: ClassVar[str] = ""
    swept: ClassVar[str] = ""
    swept_lower_is_better: ClassVar[bool] = False
    for_sweeps: ClassVar[Mapping[str, Any]] = {}
    whole_groups: ClassVar[bool] = False
    threads: int
    limited: bool = False
    out: Path

    def __init__(self, data: Path | None, settings: Any) -> None:
        self.data, self.settings = data, settings
        self.threads = getattr(settings, "threads", 1)

    @abstractmethod
    def items(self) -> list[Item]:
        """Return all items in a fixed order.

        Raises:
            ValueError: for missing or damaged data, in one sentence: the file, what is expected, and how to get it.
        """

    def files(self) -> list[Path]:
        """Return the files that items and verdicts depend on. The report lists their hashes, and changes are detected.

        By default, these are all files under `self.data` except pictures and the run's own folder. A benchmark that
        overrides this method should also override `pictures`.
        """
        return [file for file in self._under_data() if not is_picture(file)]

    def pictures(self) -> list[Path]:
        """Return the pictures that were found next to these files, for one hash over all of them.

        By default, these are the pictures under `self.data`, if `files` is the default as well.
        """
        return [file for file in self._under_data() if is_picture(file)] if type(self).files is Benchmark.files else []

    def _under_data(self) -> list[Path]:
        if self.data is None:
            return []
        out = self.out.resolve() if hasattr(self, "out") else None
        found = [self.data] if self.data.is_file() else sorted(self.data.rglob("*"))
        return [file for file in found if file.is_file() and (out is None or out not in file.resolve().parents)]

    def references(self, item: Item) -> list[Path]:
        """Return the files that the verdict on an item reads, besides the item and its output."""
        return []

    def also_shown(self, item: Item) -> Any:
        """Return what a model sees of an item besides prompt, system prompt and pictures, as JSON; None for nothing.

        An output is only made again if this or one of the others has changed. The default is None, or all of
        `item.data` if a benchmark overrides `produce`, which may show it.
        """
        return None if type(self).produce is Benchmark.produce else dict(item.data)

    def part(self, item: Item) -> str:
        """Return the part of the benchmark (category, subset) that an item belongs to; `--limit` takes from all parts.

        By default, this is the folder of the item's key.
        """
        return item.key.rpartition("/")[0]

    def parts_of(self, score: str) -> tuple[str, ...]:
        """Return the parts that a score needs; by default, any items suffice."""
        return ()

    def check_items(self, items: Sequence[Item]) -> None:
        """Look for the files of the items that `--limit` chose.

        Raises:
            ValueError: if a file is missing or damaged; the message names the first one.
        """
        for file in (file for item in items for file in self.references(item)):
            if not file.is_file():
                raise ValueError(f"{file} does not exist; expected {self.source}")

    def drawn(self, item: Item) -> bool:
        """Return whether an item is a picture to generate; a benchmark with both kinds decides by item."""
        return self.draws

    def place(self, item: Item) -> str:
        """Return the path of a picture in the run's folder, as the official scorer expects it."""
        return f"images/{item.key}.png"

    def produce(self, model: Any, items: Sequence[Item], options: Mapping[str, Any]) -> list[Output]:
        """Generate or answer several items in one batch.

        Args:
            model: a `JanusFlow` or `Janus` pipeline.
            items: some of `items()`, all to generate or all to answer.
            options: arguments of `model.generate`, or decoding arguments of `model.chat_batch`; if the benchmark
                `asks`, of both.

        Raises:
            ValueError: for an option that the model's `generate` does not take.
        """
        if self.drawn(items[0]):
            if self.asks:
                answering = self.decoding(options)
                options = {name: value for name, value in options.items() if name not in answering}
            unknown = set(options) - set(known := signature(model.generate).parameters)
            if unknown and not any(one.kind is one.VAR_KEYWORD for one in known.values()):
                raise ValueError(f"{sorted(unknown)[0]}: a {type(model).__name__} does not generate with it")
            drawn = model.generate(
                [item.prompt for item in items],
                seed=[item.seed for item in items],
                batch_size=len(items),
                progress=False,
                **options,
            )
            return list(drawn)
        return list(model.chat_batch([conversation(model, item) for item in items], **self.decoding(options)))

    def decoding(self, options: Mapping[str, Any]) -> dict[str, Any]:
        """Return the decoding arguments of `model.chat_batch` among the options, completed with `defaults`."""
        from janusflow.engine.understanding import Decoding

        names = Decoding.__dataclass_fields__ if self.asks else options
        return {**self.defaults, **{name: value for name, value in options.items() if name in names}}

    @abstractmethod
    def judge(self, item: Item, output: Output) -> dict[str, Any]:
        """Return the verdict on one output: JSON with "score"; even an unreadable answer gets one.

        Raises:
            NotJudgedError: if the judge gives no verdict.
        """

    @abstractmethod
    def scores(self, rows: Sequence[Row]) -> dict[str, float]:
        """Return all scores by name, including `main` if the rows suffice for it.

        Args:
            rows: judged items; in the bootstrap, some occur several times and others not at all.
        """

    def samples(self, rows: Sequence[Row]) -> dict[str, ScoreSample]:
        """Return the values behind each score, by name; the report computes n and, for shares, Wilson intervals.

        By default, only `main` is known: its values are the scores of all items. `whole` is 0 unless `main` is their
        mean, on a scale to 1 or in percent.
        """
        perfect = [Row(row.item, row.output, {**row.verdict, "score": 1.0}) for row in rows]
        whole = self.scores(perfect).get(self.main)
        return {self.main: over(rows, whole=whole if whole in (1, 100) else 0)}

    def scores_of_all(self, rows: Sequence[Row]) -> dict[str, float]:
        """Return further scores by name: distances between whole sets, computed once and not in the bootstrap."""
        return {}

    def intervals_of_all(self, rows: Sequence[Row]) -> dict[str, tuple[float, float]]:
        """Return 95 % intervals of the scores of `scores_of_all`, if the benchmark can estimate them."""
        return {}

    def write_official(self, rows: Sequence[Row]) -> None:
        """Write the outputs under `self.out` in the layout that the official scorer reads.

        Args:
            rows: all outputs that exist, in every mode; their verdicts are empty.
        """
        return

    def write_judged(self, rows: Sequence[Row]) -> None:
        """Write the files of the official scorer that need verdicts; only called after judging."""
        return


def is_picture(file: Path) -> bool:
    """Return whether a file's name is that of a picture."""
    return (guess_type(file.name)[0] or "").startswith("image/")


def conversation(model: Any, item: Item) -> list[dict[str, Any]]:
    """Return an item as messages: its system prompt, and its question with its pictures."""
    content = model.processor.question(item.prompt, len(item.images))
    user = {"role": "user", "content": content, "images": list(item.images)}
    return [user] if item.system is None else [{"role": "system", "content": item.system}, user]
