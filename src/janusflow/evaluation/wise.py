"""WISE (arXiv 2503.07265): pictures that need knowledge, judged by a model. Its two protocols, never mixed.

Legacy (the paper's): three scores of 0 to 2, WiScore = (0.7 consistency + 0.2 realism + 0.1 aesthetic) / 2. Verified
(the repository's since 2026): other prompts, and one score of 0 or 1. A prompt's category is told from its id, and the
overall score is a weighted sum over categories.
"""

from __future__ import annotations

import json
import re
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

CRITERIA = {"consistency": 0.7, "realism": 0.2, "aesthetic quality": 0.1}
TOP = 2  # of a criterion


@dataclass(frozen=True)
class Protocol:
    """Which prompts are of which category, and what each category weighs.

    Attributes:
        name: legacy or verified.
        categories: category to its last id and its weight, in the order of ids from 1.
    """

    name: str
    categories: Mapping[str, tuple[int, float]]

    @property
    def size(self) -> int:
        """Number of prompts."""
        return max(last for last, _ in self.categories.values())

    def category(self, prompt_id: int) -> str:
        """Of a prompt.

        Raises:
            ValueError: for an id that the protocol has not.
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
    subcategory: str


def read_prompts(file: Path) -> list[WisePrompt]:
    """One of the official files.

    Raises:
        ValueError: naming the file, the record, and what it lacks.
    """
    try:
        found = json.loads(file.read_text(encoding="utf-8"))
    except json.JSONDecodeError as error:
        raise ValueError(f"{file} is damaged: {error}; expected WISE's JSON list") from error
    if not isinstance(found, list):
        raise ValueError(f"{file} holds no list; expected WISE's JSON list of prompts")
    prompts = []
    for place, record in enumerate(found, start=1):
        try:
            number = int(record["prompt_id"])
            prompts.append(WisePrompt(number, record["Prompt"], record["Explanation"], record["Subcategory"]))
        except (KeyError, TypeError, ValueError) as error:
            wanted = "prompt_id, Prompt, Explanation and Subcategory"
            raise ValueError(f"{file}: record {place} is not WISE's; expected {wanted}") from error
    return prompts


def read_legacy(reply: str) -> dict[str, int] | None:
    """Consistency, realism and aesthetic quality from a judge's reply; None unless each stands there from 0 to 2.

    The last mention of each counts: judges think aloud before they score.
    """
    scores = {}
    for name in CRITERIA:
        found = re.findall(rf"\**{name}\**\s*[:=]?\s*\**\s*(\d+)", reply, re.IGNORECASE)
        if not found or int(found[-1]) > TOP:
            return None
        scores[name] = int(found[-1])
    return scores


def read_verified(reply: str) -> int | None:
    """0 or 1 from "Score: 0" or "Score: 1" in a judge's reply, the last that stands there; None without one."""
    found = re.findall(r"Score\**\s*:\s*\**\s*([01])(?!\d|\.\d)", reply, re.IGNORECASE)
    return int(found[-1]) if found else None


def wiscore(scores: Mapping[str, int]) -> float:
    """WiScore of one picture by the legacy protocol, in [0, 1]."""
    return sum(weight * scores[name] for name, weight in CRITERIA.items()) / TOP


def overall(protocol: Protocol, scores: Mapping[int, float]) -> dict[str, float]:
    """Mean of each category, and "overall", their weighted sum; only once every category has a picture.

    Args:
        protocol: `LEGACY` or `VERIFIED`.
        scores: of each prompt by its id, in [0, 1].

    Raises:
        ValueError: for an id that the protocol has not, or a score outside [0, 1].
    """
    groups: dict[str, list[float]] = defaultdict(list)
    for number, value in scores.items():
        if not 0 <= value <= 1:
            raise ValueError(f"the score of prompt {number} is {value}; expected 0 to 1")
        groups[protocol.category(number)].append(value)
    means = {name: sum(groups[name]) / len(groups[name]) for name in protocol.categories if name in groups}
    if len(means) < len(protocol.categories):
        return means
    return {**means, "overall": sum(weight * means[name] for name, (_, weight) in protocol.categories.items())}
