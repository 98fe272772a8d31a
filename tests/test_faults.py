"""Fault injection: the harness finds what goes wrong, and a small share of its cases passes."""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path
from random import Random
from typing import Any

import pytest

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT / "benchmarks"))

from fault_injection.cases import make_base, run_case  # noqa: E402
from fault_injection.documents import Mutation  # noqa: E402
from fault_injection.subjects import SUBJECTS, Subject  # noqa: E402
from fault_injection.weights import MARKER  # noqa: E402

from tests.processes import fork, run_script  # noqa: E402


def test_a_share_of_mutated_inputs_is_refused_in_one_sentence_or_changes_nothing(tmp_path: Path) -> None:
    words = ["--share", "0.004", "--kills", "0", "--jobs", "1", "--out", str(tmp_path / "failures.jsonl")]
    run = fork(run_script, ROOT / "benchmarks" / "faults.py", words, said=tmp_path / "said")
    run.join()
    assert run.exitcode == 0 and "0 of " in (tmp_path / "said").read_text(), (tmp_path / "said").read_text()


def _raise(error: BaseException) -> Any:
    raise error


def _large() -> bytearray:
    return bytearray(b"x") * (2 * 10**8)


@pytest.mark.parametrize(
    ("action", "verdict"),
    [
        (lambda folder: "valid", "same"),
        (lambda folder: "another", "accepted"),
        (lambda folder: _raise(ValueError(f"{folder / 'file'} is damaged; copy it again")), "refused"),
        (lambda folder: _raise(ValueError("something is damaged")), "unclear"),
        (lambda folder: _raise(ValueError(f"{folder / 'file'} is\ndamaged")), "unclear"),
        (lambda folder: _raise(KeyError("file")), "traceback"),
        (lambda folder: _raise(RecursionError("maximum recursion depth exceeded")), "traceback"),
        (lambda folder: os.kill(os.getpid(), signal.SIGKILL), "crashed"),
        (lambda folder: (folder / "half.tmp").write_text("half"), "left behind"),
        (lambda folder: (folder.parent / MARKER).write_text(""), "ran code"),
        (lambda folder: len(_large()), "too large"),
    ],
    ids=["same", "accepted", "refused", "unnamed", "lines", "exception", "depth", "crash", "left", "code", "memory"],
)
def test_what_goes_wrong_is_found(action: Any, verdict: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def use(folder: Path, out: Path) -> Any:
        return "valid" if (folder / "file").read_bytes() == b"valid" else action(folder)

    subject = Subject(
        lambda folder: (folder / "file").write_bytes(b"valid") and None,
        use,
        {"file": lambda data, rng: Mutation("replaced", b"damaged", "refused" if verdict == "accepted" else "same")},
    )
    monkeypatch.setattr("fault_injection.cases.SUBJECTS", {"made": subject})
    monkeypatch.setattr("fault_injection.cases.BYTES", 10**8)
    make_base("made", tmp_path)
    outcome = run_case(0, 0, tmp_path)
    assert outcome.verdict == verdict, outcome


def test_a_case_is_a_function_of_seed_and_number() -> None:
    config = (ROOT / "tests" / "golden" / "janusflow-small-a" / "config.json").read_bytes()
    mutate = SUBJECTS["official"].files["small-model/config.json"]
    made = [[mutate(config, Random(f"{seed}/{case}")) for case in range(20)] for seed in (0, 0, 1)]
    assert made[0] == made[1] != made[2]
    assert all(one.data != config for one in made[0])
