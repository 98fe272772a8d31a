"""Lines of finished items, of several processes, some torn by a kill."""

from __future__ import annotations

from pathlib import Path

import pytest

from janusflow.evaluation.run.records import OUTPUTS, VERDICTS, Records


def test_a_torn_line_is_cut_off(tmp_path: Path) -> None:
    records = Records(tmp_path, "outputs")
    records.append({"key": "a"})
    with records.mine.open("ab") as file:
        file.write(b'{"key": "b", "outp')
    assert [record["key"] for record in records.all()] == ["a"]
    records.append({"key": "ü"})
    Records(tmp_path, "outputs", 1).append({"key": "c"})
    assert [record["key"] for record in records.all()] == ["a", "ü", "c"]


VERDICT = b'{"key": "a", "of": null, "verdict": {"score": 1}}'


@pytest.mark.parametrize(
    ("line", "fields", "said"),
    [
        (b"{", (), "Expecting property name"),
        (b"\xff", (), "it is not UTF-8"),
        (b"[" * 5000 + b"]" * 5000, (), "it is nested too deeply"),
        (b"7", (), "it is not a mapping"),
        (b'{"key": "a"}', OUTPUTS, "it has no output"),
        (b'{"key": [1], "output": "b"}', OUTPUTS, "key is .1."),
        (b'{"key": "a", "output": 7}', OUTPUTS, "output is 7"),
        (VERDICT.replace(b"null", b"[1]"), VERDICTS, "of is .1."),
        (VERDICT.replace(b'{"score": 1}', b"7"), VERDICTS, "verdict is 7"),
        (VERDICT.replace(b"1", b"NaN"), VERDICTS, "it holds NaN"),
        (VERDICT.replace(b"1", b'"x"'), VERDICTS, "its verdict has no score"),
    ],
)
def test_a_damaged_line_is_named_with_its_file(tmp_path: Path, line: bytes, fields: tuple[str, ...], said: str) -> None:
    records = Records(tmp_path, "some")
    records.mine.write_bytes(VERDICT.replace(b'"of"', b'"output": "b", "of"') + b"\n" + line + b"\n")
    with pytest.raises(ValueError, match=rf"some-00000.jsonl: line 2 is damaged.*{said}.*delete it") as caught:
        list(records.all(fields))
    assert "\n" not in str(caught.value)


def test_another_answer_is_damage_too(tmp_path: Path) -> None:
    records = Records(tmp_path, "outputs")
    records.append({"key": "a", "output": "yes \ud83d"})
    assert list(records.all(OUTPUTS)) == [{"key": "a", "output": "yes \ud83d"}]
    records.mine.write_bytes(records.mine.read_bytes().replace(b"yes", b"yet"))
    with pytest.raises(ValueError, match="line 1 is damaged .its checksum differs"):
        list(records.all(OUTPUTS))
