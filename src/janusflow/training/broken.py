"""The limit on the share of broken records, above which training ends."""

from __future__ import annotations

from collections.abc import Sequence

ENOUGH_RECORDS = 50  # records seen before the share of broken ones says anything


def too_many_broken(seen: int, broken: int, limit: float, *, setting: str, last: Sequence[str]) -> str:
    """Return why training must end; empty if the share of broken records is within the limit or not known yet.

    Args:
        seen: number of records taken so far, with the broken ones.
        limit: largest share of broken records.
        setting: name of the limit in the recipe.
        last: descriptions of the last broken records, if there are any.
    """
    if seen < ENOUGH_RECORDS or broken <= limit * seen:
        return ""
    return (
        f"{broken} of {seen} records that were taken are broken (one taken twice counts twice), "
        f"more than {setting}={limit:g}" + (f"; the last: {last[-1]}" if last else "")
    )
