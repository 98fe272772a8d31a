"""A benchmark of numbers, for tests: pictures whose grey level is a number, and answers that are one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from PIL import Image

from janusflow.evaluation.protocol import Benchmark, Item, NotJudgedError, Output, Row


@dataclass(frozen=True)
class CountingSettings:
    items: int = 10
    judge_fails: bool = False
    tolerance: int = 0


class Counting(Benchmark):
    """Draws the pictures with even numbers (their grey level is the number), and answers the odd ones."""

    name: ClassVar[str] = "counting"
    title: ClassVar[str] = "Counting"
    draws: ClassVar[bool] = True
    asks: ClassVar[bool] = True
    Settings: ClassVar[type] = CountingSettings
    judging = (*Benchmark.judging, "tolerance")
    published: ClassVar[Mapping[str, Mapping[str, float]]] = {"the paper": {"overall": 0.5, "other": 1.0}}
    judged: ClassVar[list[str]] = []

    def items(self) -> list[Item]:
        count = self.settings.items
        return [Item(f"{n:03d}", f"number {n}", seed=n, group=str(n // 4), data={"n": n}) for n in range(count)]

    def drawn(self, item: Item) -> bool:
        return item.data["n"] % 2 == 0

    def judge(self, item: Item, output: Output) -> dict[str, Any]:
        self.judged.append(item.key)
        if self.settings.judge_fails and item.data["n"] == 3:
            raise NotJudgedError("the judge is asleep")
        said = output if isinstance(output, str) else str(output.convert("RGB").getpixel((0, 0))[0])
        return {"score": float(abs(int(said) - item.data["n"]) <= self.settings.tolerance), "said": said}

    def scores(self, rows: Sequence[Row]) -> dict[str, float]:
        return {"overall": sum(row.score for row in rows) / len(rows)}

    def write_official(self, rows: Sequence[Row]) -> None:
        (self.out / "official.txt").write_text("\n".join(row.output for row in rows))


class Model:
    """Draws and answers numbers; `wrong` of them are off by one."""

    def __init__(self, wrong: Sequence[int] = (), most: int = 10**9) -> None:
        self.wrong, self.most, self.made, self.sizes = wrong, most, [], []  # type: ignore[var-annotated]
        self.processor = self

    def question(self, text: str, pictures: int) -> str:
        return text

    def _number(self, text: str) -> int:
        if len(self.made) >= self.most:
            raise KeyboardInterrupt
        self.made.append(text)
        number = int(text.split()[-1])
        return number + (number in self.wrong)

    def generate(self, prompts: Sequence[str], **options: Any) -> list[Image.Image]:
        self.sizes.append(len(prompts))
        return [Image.new("RGB", (8, 8), (self._number(prompt),) * 3) for prompt in prompts]

    def chat_batch(self, conversations: Sequence[Any], **options: Any) -> list[str]:
        return [str(self._number(talk[-1]["content"])) for talk in conversations]
