"""Lines of finished items, of several processes, some torn by a kill."""

from __future__ import annotations

from pathlib import Path

from janusflow.evaluation.records import Records


def test_a_torn_line_is_cut_off(tmp_path: Path) -> None:
    records = Records(tmp_path, "outputs")
    records.append({"key": "a"})
    with records.mine.open("ab") as file:
        file.write(b'{"key": "b", "outp')
    assert [record["key"] for record in records.all()] == ["a"]
    records.append({"key": "ü"})
    Records(tmp_path, "outputs", 1).append({"key": "c"})
    assert [record["key"] for record in records.all()] == ["a", "ü", "c"]
