"""What a benchmark is: items to generate or to answer, a verdict on each output, and scores from all verdicts.

A benchmark is one file of `benchmarks/` with a subclass of `Benchmark`, named in `evaluation/registry.py`. It knows its
data and its rules; generating, asking, resuming and sharding are in `evaluation/run/`, reporting
in `evaluation/reports/`.
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
    """One thing to do: a picture to generate, or a question to answer.

    Attributes:
        key: unique and of characters that a file's name may have ("/" makes folders); names the output.
        prompt: what is generated, or asked.
        images: of the question, in its order; paths or pictures.
        seed: of the noise of a picture to generate.
        group: items of one group (the pictures of a prompt, both questions of an MME picture) stay together when the
            bootstrap samples; "" for an item of its own.
        system: system prompt of a question; None for the model's own.
        data: what the verdict needs, as JSON; it is not shown to the model.
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
        item: what was done.
        output: the answer, or the picture's path under the run's folder.
        verdict: of the judge, as JSON: "score" (a number, the higher the better), and what explains it.
    """

    item: Item
    output: str
    verdict: Mapping[str, Any]

    @property
    def score(self) -> float:
        """The verdict's number."""
        return float(self.verdict["score"])


@dataclass(frozen=True)
class NoSettings:
    """Of a benchmark that has none."""


class Benchmark(AsksJudge, ABC):
    """A benchmark over data on disk.

    Args:
        data: folder of its official files; None if it makes its data itself.
        settings: an instance of its `Settings`.

    Attributes:
        name: on the command line.
        title: in reports.
        draws: whether its items are pictures to generate; otherwise they are questions.
        asks: whether some are questions and others pictures to generate.
        Settings: a frozen dataclass of its options (`--set key=value`), every field with a default.
        judged_by: what kind of model `Settings.judge` must name; "" where none is needed.
        judging: names of settings that only affect verdicts: with others a run keeps its outputs and is judged again.
        judging_models: names of settings that are transformers models, as folders or names on the hub; "" is none.
        main: name of the score that is quoted.
        published: scores that others report, by model, with the names of `scores` (another name where it is
            not known how it was computed); the paper's first.
        source: where its data comes from and what files are expected, for messages.
        bootstrap: whether intervals come from resampled items (not for distances between whole sets).
        lower_is_better: whether a lower value of `main` is better.
        defaults: decoding arguments that are used unless others are given.
        official_items: how many items the whole official set has; 0 where that is not known, or depends on settings.
        caveat: what a reader must know before comparing a report with published figures.
        swept: name of the score that a sweep over options of generating shows; "" for `main`.
        for_sweeps: settings of such a sweep, where the user gives none: they leave out what does not depend on
            generating.
        whole_groups: whether `--limit` keeps the items of a group together.
        threads: how many verdicts are asked for at once.
        limited: whether only some items are chosen; `items` then leaves looking for their pictures to `check_items`.
        out: folder of the run; set before anything is made, judged or scored.
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
        """All items, in a fixed order.

        Raises:
            ValueError: for missing or damaged data: one sentence with the file, what is expected, and how to get it.
        """

    def files(self) -> list[Path]:
        """The files that items and verdicts depend on. The report has their hashes, and changes in them are noticed.

        By default everything under `self.data` except pictures and the run's own folder. A benchmark that names its
        files names its `pictures` as well.
        """
        return [file for file in self._under_data() if not is_picture(file)]

    def pictures(self) -> list[Path]:
        """The pictures that were found next to them, for one hash over all of them.

        By default those under `self.data`, if `files` is the default too.
        """
        return [file for file in self._under_data() if is_picture(file)] if type(self).files is Benchmark.files else []

    def _under_data(self) -> list[Path]:
        if self.data is None:
            return []
        out = self.out.resolve() if hasattr(self, "out") else None
        found = [self.data] if self.data.is_file() else sorted(self.data.rglob("*"))
        return [file for file in found if file.is_file() and (out is None or out not in file.resolve().parents)]

    def references(self, item: Item) -> list[Path]:
        """Files that the verdict on an item reads besides the item and its output."""
        return []

    def also_shown(self, item: Item) -> Any:
        """What a model is shown of an item besides its prompt, system prompt and pictures, as JSON; None for nothing.

        An output is made again only if this, or one of the others, has changed. By default nothing, or all of
        `item.data` where a benchmark defines `produce`, which may show it.
        """
        return None if type(self).produce is Benchmark.produce else dict(item.data)

    def part(self, item: Item) -> str:
        """The part of the benchmark (category, subset) that an item belongs to: `--limit` takes from all of them.

        By default the folder of the item's key.
        """
        return item.key.rpartition("/")[0]

    def parts_of(self, score: str) -> tuple[str, ...]:
        """The parts that this score needs; by default any items suffice."""
        return ()

    def check_items(self, items: Sequence[Item]) -> None:
        """Look for the files of the items that `--limit` chose.

        Raises:
            ValueError: naming the first that is missing or damaged.
        """
        for file in (file for item in items for file in self.references(item)):
            if not file.is_file():
                raise ValueError(f"{file} does not exist; expected {self.source}")

    def drawn(self, item: Item) -> bool:
        """Whether this item is a picture to generate; a benchmark with both kinds decides by item."""
        return self.draws

    def place(self, item: Item) -> str:
        """Path of a picture under the run's folder; as the official scorer wants it."""
        return f"images/{item.key}.png"

    def produce(self, model: Any, items: Sequence[Item], options: Mapping[str, Any]) -> list[Output]:
        """Generate or answer several items in one batch.

        Args:
            model: a `JanusFlow` or `Janus` pipeline.
            items: some of `items()`, all to generate or all to answer.
            options: arguments of `model.generate`, or decoding arguments of `model.chat_batch`.

        Raises:
            ValueError: for an option that this model does not generate with.
        """
        if self.drawn(items[0]):
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
        return list(model.chat_batch([conversation(model, item) for item in items], **options))

    @abstractmethod
    def judge(self, item: Item, output: Output) -> dict[str, Any]:
        """The verdict on one output: JSON with "score"; even an unreadable answer gets one.

        Raises:
            NotJudgedError: if the judge gave none.
        """

    @abstractmethod
    def scores(self, rows: Sequence[Row]) -> dict[str, float]:
        """All scores by name, `main` among them if the rows suffice for it.

        Args:
            rows: judged items; in the bootstrap some occur several times and others not at all.
        """

    def samples(self, rows: Sequence[Row]) -> dict[str, ScoreSample]:
        """What each score is over, by its name: the report gives n and, for shares, Wilson's intervals from it.

        By default only scores that are the mean of all items' scores are known, as 1 or in percent.
        """
        perfect = [Row(row.item, row.output, {**row.verdict, "score": 1.0}) for row in rows]
        whole = self.scores(perfect).get(self.main)
        return {self.main: over(rows, whole=whole if whole in (1, 100) else 0)}

    def scores_of_all(self, rows: Sequence[Row]) -> dict[str, float]:
        """Further scores by name, without intervals: distances between whole sets, computed once."""
        return {}

    def intervals_of_all(self, rows: Sequence[Row]) -> dict[str, tuple[float, float]]:
        """95 % intervals of scores of `scores_of_all`, where the benchmark can estimate them."""
        return {}

    def write_official(self, rows: Sequence[Row]) -> None:
        """Write the outputs under `self.out` in the layout that the official scorer reads.

        Args:
            rows: all that is made, in every mode; their verdicts are empty.
        """
        return

    def write_judged(self, rows: Sequence[Row]) -> None:
        """Write what the official scorer reads and what needs verdicts; only after judging."""
        return


def is_picture(file: Path) -> bool:
    """Whether a file's name is a picture's."""
    return (guess_type(file.name)[0] or "").startswith("image/")


def conversation(model: Any, item: Item) -> list[dict[str, Any]]:
    """An item as messages: its system prompt, and its question with its pictures."""
    content = model.processor.question(item.prompt, len(item.images))
    user = {"role": "user", "content": content, "images": list(item.images)}
    return [user] if item.system is None else [{"role": "system", "content": item.system}, user]
