"""Whose turn it is, and how much of it: decides between texts and pictures where both wait."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Annotated

from annotated_types import Ge, Gt, Interval
from pydantic.dataclasses import dataclass as checked_dataclass

from janusflow.serving.jobs import KINDS, Kind

MEMORY = 10.0  # seconds of work that the share is kept over
NEWEST = 0.3  # weight of the newest measurement in the cost of a unit


@checked_dataclass(frozen=True)
class PolicySettings:
    """The operator's two settings.

    Attributes:
        max_text_wait: longest time, in seconds, that the next token of a text waits behind pictures. One step of one
            picture cannot be interrupted; where it takes longer, that is the wait.
        picture_share: share of the work that pictures get while both wait.
    """

    max_text_wait: Annotated[float, Gt(0)] = 0.2
    picture_share: Annotated[float, Interval(ge=0.0, le=1.0)] = 0.5


@dataclass
class Policy:
    """Chooses the next tick.

    Attributes:
        settings: see `PolicySettings`.
        work: seconds that each kind got while both waited.
        cost: of one unit of a picture, in seconds, as measured.
        waited: seconds of pictures since texts last had a turn.
    """

    settings: PolicySettings
    work: dict[Kind, float] = field(default_factory=lambda: dict.fromkeys(KINDS, 0.0))
    cost: Annotated[float, Ge(0)] = 0.0
    waited: float = 0.0

    def choose(self, *, texts: int, pictures: int) -> tuple[Kind, int]:
        """Which kind has the next turn, and how many of its jobs advance.

        Args:
            texts, pictures: how many wait.
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
        """Takes the time of a turn.

        Args:
            kind: that had it.
            jobs: that advanced.
            seconds: that it took.
            both: whether the other kind waited meanwhile; otherwise neither owes anything to the other.
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
