"""A user's own functions are found in the current folder, and what is wrong with them is told."""

from __future__ import annotations

import linecache
import sys
from pathlib import Path

import pytest

from janusflow.functions import code_of, load_function


def test_a_function_is_found_here_or_where_it_is_installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "scores_of_mine.py").write_text("def score(picture):\n    return 0.5\n")
    assert load_function("scores_of_mine:score", "--scorer")(None) == 0.5
    assert load_function("math:sqrt", "--scorer")(4.0) == 2


def test_what_is_wrong_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "needs_more.py").write_text("import a_library_that_is_not_there\n")
    (tmp_path / "is_cut_off.py").write_text("def score(\n")
    for name, words in (
        ("nowhere:nothing", "expected module:function .*No module named 'nowhere'"),
        ("nowhere", "expected module:function, such as"),
        ("nowhere:", "expected module:function, such as"),
        ("math:nothing", "AttributeError: .*nothing"),
        ("math:pi", "is no function but float"),
        ("needs_more:score", "No module named 'a_library_that_is_not_there'"),
        ("is_cut_off:score", "SyntaxError"),
    ):
        with pytest.raises(ValueError, match=f"--scorer is '{name}'.*{words}"):
            load_function(name, "--scorer")


def test_code_that_has_changed_is_told_from_what_it_was(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    digests = []
    for body in ("LEAST = 1", "LEAST = 1", "LEAST = 2"):
        (tmp_path / "changes_much.py").write_text(f"{body}\ndef score(picture):\n    return LEAST\n")
        sys.modules.pop("changes_much", None)
        linecache.checkcache()
        digests.append(code_of(load_function("changes_much:score", "--judge")))
    assert digests[0] == digests[1] != digests[2]
    assert code_of(max) == ""
