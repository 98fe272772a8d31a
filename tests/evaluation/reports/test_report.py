"""The parts of a report: notes, n, and the gallery's choice."""

from __future__ import annotations

from janusflow.evaluation.protocol import Item, Row
from janusflow.evaluation.reports.report import picked


def test_the_gallery_shows_every_part_and_nothing_bad_among_the_best() -> None:
    found = [("draw/one", 0.0), ("draw/one", 0.5), ("ask/what", 1.0), ("ask/what", 1.0), ("ask/which", 0.0)]
    rows = [Row(Item(f"{part}/{n}", "?"), "!", {"score": score}) for n, (part, score) in enumerate(found)]
    assert [row.item.key for row in picked(rows, best=True)] == ["ask/what/2", "draw/one/1", "ask/what/3"]
    assert [row.item.key for row in picked(rows, best=False)] == ["draw/one/0", "ask/which/4", "draw/one/1"]
    assert len(picked(rows, best=True, count=2)) == 2 and picked([], best=True) == []
    assert len(picked(rows[2:4], best=False)) == 2
