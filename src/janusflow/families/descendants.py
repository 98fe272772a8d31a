"""Released checkpoints that descend from Janus-Pro: the same network, with procedures of their own.

They are recognized only by name, because their files are those of Janus-Pro; `names_of` in `checkpoint/card.py` finds
their names. Sources: the repositories FreedomIntelligence/ShareGPT-4o-Image, wendell0218/Janus-Pro-R1, CaraJ7/T2I-R1,
mm-vl/ULM-R1 and wendell0218/FocusDiff.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Descendant:
    """A line of released checkpoints that use a family's network.

    Attributes:
        name: part of its checkpoints' names, in upper or lower case.
        does: what it was trained for, and the options of `generate` for that.
        introspects: whether it reads its own pictures again, as in `engine/introspection.py`.
        sft_format: chat template that its own scripts use, if it differs from the one in its files.
    """

    name: str
    does: str
    introspects: bool = False
    sft_format: str | None = None


DESCENDANTS = (
    Descendant("Janus-4o", "edits pictures (image=, image_guidance_scale=)"),
    Descendant("Janus-Pro-R1", "judges its pictures and generates them again (redraw=)", introspects=True),
    # Its scripts name the roles "User" and "Assistant", which the template of Janus-Pro writes as they are.
    Descendant("T2I-R1", "plans a picture in words (plan=)", sft_format="deepseek_old"),
    Descendant("ULM-R1", "is used like Janus-Pro"),
    Descendant("FocusDiff", "is used like Janus-Pro"),
)


def named(descendants: Sequence[Descendant], names: Iterable[str]) -> Descendant | None:
    """Return the descendant that the first of several names contains; None if none does.

    Example:
        >>> named(DESCENDANTS, ["my folder", "midbee/Janus-Pro-R1-7B"]).name
        'Janus-Pro-R1'
    """
    for name in names:
        for one in descendants:
            if one.name.lower() in name.lower().replace("_", "-"):
                return one
    return None
