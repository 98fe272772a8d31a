"""Choose whose turn it is and how many jobs advance, and share the time between texts and pictures if both wait."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Annotated

from annotated_types import Gt, Interval
from pydantic.dataclasses import dataclass as checked_dataclass

from janusflow.serving.jobs import KINDS, Kind

MEMORY = 10.0  # seconds of work over which the share is kept
NEWEST = 0.3  # weight of the newest measurement in the cost of a unit


@checked_dataclass(frozen=True)
class PolicySettings:
    """The operator's two settings.

    Attributes:
        max_text_wait: longest time, in seconds, that the next token of a text waits behind pictures. One step of one
            picture cannot be interrupted; if it takes longer, so does the wait.
        picture_share: share of the work that pictures get while both wait.
    """

    max_text_wait: Annotated[float, Gt(0)] = 0.2
    picture_share: Annotated[float, Interval(ge=0.0, le=1.0)] = 0.5


@dataclass
class Policy:
    """Choose what the next tick advances.

    Attributes:
        settings: see `PolicySettings`.
        work: seconds that each kind got while both waited.
        cost: measured seconds for one unit of a picture.
        waited: seconds spent on pictures since texts last had a turn.
    """

    settings: PolicySettings
    work: dict[Kind, float] = field(default_factory=lambda: dict.fromkeys(KINDS, 0.0))
    cost: float = 0.0
    waited: float = 0.0

    def choose(self, *, texts: int, pictures: int) -> tuple[Kind, int]:
        """Return which kind has the next turn, and how many of its jobs advance.

        Args:
            texts, pictures: number that wait.
        """
        if not texts or not pictures:
            return ("text", texts) if texts else ("picture", pictures)
        room = self.settings.max_text_wait - self.waited
        late = self.waited > 0 and self.cost > room
        if late or self.work["picture"] > self.settings.picture_share * sum(self.work.values()):
            return "text", texts
        fitting = int(room / self.cost) if self.cost else 1
        return "picture", max(1, min(pictures, fitting))

    def record(self, kind: Kind, jobs: int, seconds: float, *, both: bool) -> None:
        """Record the time of a turn.

        Args:
            kind: kind that had the turn.
            jobs: number of jobs that advanced.
            seconds: time that it took.
            both: whether the other kind waited meanwhile; if not, neither owes the other anything.
        """
        if kind == "picture":
            each = seconds / jobs
            self.cost = each if not self.cost else (1 - NEWEST) * self.cost + NEWEST * each
        self.waited = self.waited + seconds if kind == "picture" and both else 0.0
        if not both:
            self.work = dict.fromkeys(KINDS, 0.0)
            return
        self.work[kind] += seconds
        if sum(self.work.values()) > MEMORY:
            self.work = {name: value / 2 for name, value in self.work.items()}
