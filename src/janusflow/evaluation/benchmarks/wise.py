"""WISE (arXiv 2503.07265): pictures that need knowledge, judged by a model, in two protocols that are never mixed.

Legacy (the paper's): three scores from 0 to 2, WiScore = (0.7 consistency + 0.2 realism + 0.1 aesthetic) / 2. Verified
(the repository's since 2026): other prompts, and one score of 0 or 1. A prompt's category follows from its id, and the
overall score is a weighted sum over categories.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

from annotated_types import Interval
from PIL import Image

from janusflow.evaluation.protocol import Benchmark, Item, Output, Row
from janusflow.evaluation.score_sample import ScoreSample, by_part, over
from janusflow.files import loads

CRITERIA = {"consistency": 0.7, "realism": 0.2, "aesthetic quality": 0.1}
TOP = 2  # highest score of a criterion


@dataclass(frozen=True)
class Protocol:
    """The categories of the prompts and their weights.

    Attributes:
        name: legacy or verified.
        categories: last id and weight of each category, in the order of ids from 1.
    """

    name: str
    categories: Mapping[str, tuple[int, float]]

    @property
    def size(self) -> int:
        """Number of prompts."""
        return max(last for last, _ in self.categories.values())

    def category(self, prompt_id: int) -> str:
        """Return the category of a prompt.

        Raises:
            ValueError: for an id that the protocol does not have.
        """
        if prompt_id >= 1:
            for name, (last, _) in self.categories.items():
                if prompt_id <= last:
                    return name
        raise ValueError(f"prompt_id is {prompt_id}; the {self.name} protocol has 1 to {self.size}")


LEGACY = Protocol(
    "legacy",
    {
        "culture": (400, 0.4),
        "time": (567, 0.167),
        "space": (700, 0.133),
        "biology": (800, 0.1),
        "physics": (900, 0.1),
        "chemistry": (1000, 0.1),
    },
)
VERIFIED = Protocol(
    "verified",
    {
        "culture": (400, 0.4),
        "time": (520, 0.12),
        "space": (640, 0.12),
        "biology": (760, 0.12),
        "physics": (880, 0.12),
        "chemistry": (1000, 0.12),
    },
)


@dataclass(frozen=True)
class WisePrompt:
    """One prompt, and what its picture should show."""

    number: int
    prompt: str
    explanation: str


def read_prompts(file: Path) -> list[WisePrompt]:
    """Read one of the official files.

    Raises:
        ValueError: for an invalid file or record; the message names the file, the record, and what it lacks.
    """
    try:
        found = loads(file.read_text(encoding="utf-8"), finite=False)
    except ValueError as error:
        raise ValueError(f"{file} is damaged: {error}; expected WISE's JSON list") from error
    if not isinstance(found, list):
        raise ValueError(f"{file} is not a list; expected WISE's JSON list of prompts")
    prompts = []
    for place, record in enumerate(found, start=1):
        try:
            number = int(record["prompt_id"])
            prompts.append(WisePrompt(number, record["Prompt"], record["Explanation"]))
        except (KeyError, TypeError, ValueError) as error:
            wanted = "prompt_id, Prompt and Explanation"
            raise ValueError(f"{file}: record {place} is not WISE's; expected {wanted}") from error
    return prompts


def read_legacy(reply: str) -> dict[str, int] | None:
    """Read consistency, realism and aesthetic quality from a judge's reply; None unless each is there from 0 to 2.

    The last mention of each counts: judges think aloud before they score. A reply that mentions none of them may have
    three lines of a number each.
    """
    scores: dict[str, int] = {}
    for name in CRITERIA:
        found = re.findall(rf"{name}\**+\s*+(?:[:=：]\s*+)?(?:\*++\s*+)?(\d{{1,9}})", reply, re.IGNORECASE)
        if found:
            scores[name] = int(found[-1])
    if not scores:
        bare = re.findall(r"(?m)^[^\S\n]*+([0-2])[^\S\n]*+$", reply)
        scores = dict(zip(CRITERIA, map(int, bare), strict=False))
    return scores if len(scores) == len(CRITERIA) and max(scores.values()) <= TOP else None


def read_verified(reply: str) -> int | None:
    """Read 0 or 1 from the first "Score: 0" or "Score 1" in a judge's reply, or from its only line of a number alone.

    None if there is neither. As in the official code, the first one counts, and "Score: 1.0" is 1.
    """
    found = re.search(r"Score\**+\s*+[:：]?\s*+\**+\s*+([01])\b", reply, re.IGNORECASE)
    if found:
        return int(found[1])
    bare = re.findall(r"(?m)^[^\S\n]*+([01])[^\S\n]*+$", reply)
    return int(bare[0]) if len(bare) == 1 else None


def wiscore(scores: Mapping[str, int]) -> float:
    """Return the WiScore of one picture by the legacy protocol, in [0, 1]."""
    return sum(weight * scores[name] for name, weight in CRITERIA.items()) / TOP


def overall(protocol: Protocol, scores: Iterable[tuple[int, float]]) -> dict[str, float]:
    """Return the mean of each category, and their weighted sum, "overall", once every category has a picture.

    Args:
        protocol: `LEGACY` or `VERIFIED`.
        scores: (id of the prompt, score in [0, 1]) for each picture.

    Raises:
        ValueError: for an id that the protocol does not have, or a score outside [0, 1].
    """
    groups: dict[str, list[float]] = defaultdict(list)
    for number, value in scores:
        if not 0 <= value <= 1:
            raise ValueError(f"the score of prompt {number} is {value}; expected 0 to 1")
        groups[protocol.category(number)].append(value)
    means = {name: sum(groups[name]) / len(groups[name]) for name in protocol.categories if name in groups}
    if len(means) < len(protocol.categories):
        return means
    return {**means, "overall": sum(weight * means[name] for name, (_, weight) in protocol.categories.items())}


# --- the benchmark --------------------------------------------------------------------------------------------------

FILES = {  # by protocol: its folders in the repository, and its files
    "legacy": (
        ("WISE_legacy/data", "data"),
        ("cultural_common_sense.json", "spatio-temporal_reasoning.json", "natural_science.json"),
    ),
    "verified": (
        ("data_verified",),
        (
            "cultural_common_sense_verified.json",
            "spatio-temporal_reasoning_verified.json",
            "natural_science_verified.json",
        ),
    ),
}
SYSTEM = "You judge pictures that were drawn from a text. You are strict: whatever is not plainly seen does not count."
LEGACY_PROMPT = """The picture was drawn from this prompt:
{prompt}

The prompt leaves out what it means; this is what the picture has to show:
{explanation}

Give three whole numbers from 0 to 2, each on its own grounds.

Consistency: does the picture show what the prompt means, by the explanation?
0: it shows something else, or only the prompt's words. 1: part of it is there, or a key point is missing or wrong.
2: everything that the explanation names is there and right.

Realism: could the scene be real, in materials, light, shapes, proportions and the laws of nature?
0: plainly not, or broken. 1: mostly, with faults that are seen. 2: yes, down to details.

Aesthetic Quality: are composition, colors and clarity pleasing?
0: poor. 1: plain, or with faults. 2: good.

First say briefly what you see. End with these three lines and nothing after them:
Consistency: N
Realism: N
Aesthetic Quality: N"""
VERIFIED_PROMPT = """The picture was drawn from this prompt:
{prompt}

The prompt leaves out what it means; this is what the picture has to show:
{explanation}

Does the picture show it? Name what the explanation asks for, look for each part in the picture, and compare. Style,
beauty and small flaws do not matter. The score is 1 if every necessary part is there, can be recognized and
contradicts nothing; it is 0 if any is missing, wrong or beyond recognition.

First reason briefly. End with one line and nothing after it:
Score: 0 or Score: 1"""


@dataclass(frozen=True)
class WiseSettings:
    """Settings of WISE.

    Attributes:
        protocol: "legacy" (the paper's, judged by GPT-4o there) or "verified" (the repository's since 2026, judged by
            Qwen3.5-35B-A3B). Their figures are not comparable, nor are those of different judges.
        judge: model that sees pictures, as `judges.open_judge` takes it.
        seed: seed of the first prompt's noise; the next prompts have the next seeds.
        threads: number of pictures judged at once.
    """

    protocol: Literal["legacy", "verified"] = "legacy"
    judge: str = ""
    seed: Annotated[int, Interval(ge=0, lt=2**63)] = 0
    threads: Annotated[int, Interval(ge=1, le=1000)] = 1


class Wise(Benchmark):
    """WISE: 1,000 prompts with one picture each, and the files, ids, weights and judging of one protocol.

    The pictures are `images/ID.png`, which is the official layout.
    """

    name = "wise"
    title = "WISE"
    official_items = 1000
    draws = True
    Settings = WiseSettings
    judged_by = "a model that judges pictures"
    source = "the JSON files of WISE_legacy/data or data_verified of github.com/PKU-YuanGroup/WISE"
    published: ClassVar[Mapping[str, Mapping[str, float]]] = {"JanusFlow 384 (TorchUMM; legacy)": {"overall": 0.2964}}

    def __init__(self, data: Path | None, settings: Any) -> None:
        super().__init__(data, settings)
        self.protocol = VERIFIED if settings.protocol == "verified" else LEGACY

    def items(self) -> list[Item]:
        """Return the items in the order of the prompts' ids."""
        prompts: dict[int, WisePrompt] = {}
        for file in self.files():
            for prompt in read_prompts(file):
                self.protocol.category(prompt.number)
                if prompts.setdefault(prompt.number, prompt) is not prompt:
                    raise ValueError(f"{file}: prompt_id {prompt.number} stands in the files twice; expected each once")
        lacking = next((number for number in range(1, self.protocol.size + 1) if number not in prompts), None)
        if lacking is not None:
            raise ValueError(f"{self.files()[0].parent}: no file has prompt_id {lacking}; expected {self.source}")
        return [
            Item(
                str(number),
                prompts[number].prompt,
                seed=self.settings.seed + number - 1,
                data={"prompt_id": number, "explanation": prompts[number].explanation},
            )
            for number in sorted(prompts)
        ]

    def files(self) -> list[Path]:
        folders, names = FILES[self.protocol.name]
        if self.data is None:
            raise ValueError(f"WISE needs a folder with its files: {self.source}")
        for folder in (self.data, *(self.data / inner for inner in folders)):
            if (folder / names[0]).is_file():
                lacking = next((name for name in names if not (folder / name).is_file()), None)
                if lacking is not None:
                    raise ValueError(f"{folder} has no {lacking}; expected {', '.join(names)}")
                return [folder / name for name in names]
        raise ValueError(
            f"{self.data} has no {names[0]}, which the {self.protocol.name} protocol needs; expected {self.source}, "
            "or the other protocol by --set protocol=..."
        )

    def judge(self, item: Item, output: Output) -> dict[str, Any]:
        """Return the score in [0, 1], with the legacy protocol's three, and the judge's reply."""
        assert isinstance(output, Image.Image)
        form = LEGACY_PROMPT if self.protocol is LEGACY else VERIFIED_PROMPT
        asked = form.format(prompt=item.prompt, explanation=item.data["explanation"])
        read: Callable[[str], Any] = read_legacy if self.protocol is LEGACY else read_verified
        found, reply = self.ask_judge(asked, [output], read=read, system=SYSTEM)
        if found is None:
            raise self.no_verdict(reply)
        if self.protocol is LEGACY:
            return {"score": wiscore(found), "criteria": found, "reply": reply}
        return {"score": found, "reply": reply}

    def part(self, item: Item) -> str:
        return self.protocol.category(int(item.data["prompt_id"]))

    def parts_of(self, score: str) -> tuple[str, ...]:
        names = tuple(self.protocol.categories)
        return names if score == "overall" else (score,) if score in names else ()

    def samples(self, rows: Sequence[Row]) -> dict[str, ScoreSample]:
        return {"overall": over(rows), **by_part(rows, lambda row: [self.part(row.item)], whole=1)}

    def scores(self, rows: Sequence[Row]) -> dict[str, float]:
        return overall(self.protocol, ((int(row.item.data["prompt_id"]), row.score) for row in rows))
