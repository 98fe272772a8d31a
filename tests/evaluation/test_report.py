"""The parts of a report: intervals from resampled groups, and the gallery's choice."""

from __future__ import annotations

from janusflow.evaluation.protocol import Item, Row
from janusflow.evaluation.report import bootstrap, picked
from tests.evaluation.test_run import Counting, CountingSettings


def test_the_bootstrap_draws_groups() -> None:
    """Ten groups of ten equal rows have intervals as wide as ten rows, not as a hundred."""

    def rows(groups: int, each: int) -> list[Row]:
        items = [Item(f"{g}-{n}", "", group=str(g)) for g in range(groups) for n in range(each)]
        return [Row(item, "", {"score": float(int(item.group) % 2)}) for item in items]

    benchmark = Counting(None, CountingSettings())
    wide = bootstrap(benchmark, rows(10, 10))["overall"]
    narrow = bootstrap(benchmark, rows(100, 1))["overall"]
    assert wide[1] - wide[0] > 0.4 and 0.1 < narrow[1] - narrow[0] < 0.25
    assert bootstrap(benchmark, rows(10, 10)) == bootstrap(benchmark, rows(10, 10))


def test_the_gallery_shows_every_part_and_nothing_bad_among_the_best() -> None:
    found = [("draw/one", 0.0), ("draw/one", 0.5), ("ask/what", 1.0), ("ask/what", 1.0), ("ask/which", 0.0)]
    rows = [Row(Item(f"{part}/{n}", "?"), "!", {"score": score}) for n, (part, score) in enumerate(found)]
    assert [row.item.key for row in picked(rows, best=True)] == ["ask/what/2", "draw/one/1", "ask/what/3"]
    assert [row.item.key for row in picked(rows, best=False)] == ["draw/one/0", "ask/which/4", "draw/one/1"]
    assert len(picked(rows, best=True, count=2)) == 2 and picked([], best=True) == []
    assert len(picked(rows[2:4], best=False)) == 2
