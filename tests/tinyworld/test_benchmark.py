"""The tiny world as a benchmark: how answers are read, talks of several turns, and sweeps over options of drawing."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from random import Random
from typing import Any

import pytest

from janusflow.evaluation.protocol import Item, Row
from janusflow.evaluation.request import EvalRequest
from janusflow.evaluation.run import command as command_module
from janusflow.evaluation.run.command import _for_sweep
from janusflow.evaluation.run.command import eval_command as command
from janusflow.tinyworld.benchmark import TURNS, TinyWorld, WorldSettings, yes_f1
from janusflow.tinyworld.captions import HELD_OUT_KINDS, Clause, Task, sample_pair, scene_for
from janusflow.tinyworld.items import tasks
from janusflow.tinyworld.scenes import Scene, Shape
from janusflow.tinyworld.verdicts import dense_answers
from tests.evaluation.benchmarks.test_geneval import Painter


@pytest.fixture(scope="module")
def benchmark() -> TinyWorld:
    found = TinyWorld(None, WorldSettings(prompts=1, images=1, questions=2, features=False))
    found.items()
    return found


def asked(*answers: str, kind: str = "talk") -> Item:
    return Item("ask/it/0", "?", data={"kind": kind, "answers": list(answers), "questions": ["?"] * len(answers)})


class Replying(Painter):
    """Replies in turn."""

    def __init__(self, *replies: str) -> None:
        super().__init__()
        self.replies, self.processor = list(replies), self

    def question(self, text: str, images: int) -> str:
        return text

    def chat_batch(self, conversations: Sequence[Any], **options: Any) -> list[str]:
        return [self.replies.pop(0) for _ in conversations]


def test_a_new_line_in_an_answer_shifts_no_turn(benchmark: TinyWorld) -> None:
    item = asked("a red circle and a star", "yes", "blue")
    (said,) = benchmark.produce(Replying(" a red circle\n\nand a\x85star\n", "yes", "blue"), [item], {})
    assert str(said).count("\n") == TURNS - 1 and benchmark.judge(item, said)["score"] == 1


@pytest.mark.parametrize(
    ("answer", "wanted", "score"),
    [
        ("yes", "yes", 1),
        ("Yes.", "yes", 1),
        ("yes, there is", "yes", 1),
        ("NO", "no", 1),
        ("No, there is not. Yes.", "no", 1),
        ("there is no circle", "yes", 0),
        ("Yes.", "no", 0),
        ("", "yes", 0),
        ("Red.", "red", 0),  # other answers are words for words
    ],
)
def test_yes_and_no_are_read_leniently(benchmark: TinyWorld, answer: str, wanted: str, score: float) -> None:
    assert benchmark.judge(asked(wanted, kind="relation"), answer)["score"] == score


def test_the_f1_reads_as_the_score_does() -> None:
    rows = [Row(asked(wanted, kind="exists"), said, {}) for wanted, said in (("yes", "Yes."), ("no", "No, none"))]
    assert yes_f1(rows) == 1 and yes_f1([Row(asked("yes"), "no.", {}), *rows[1:]]) == 0


def test_a_sweep_over_drawing_asks_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(command_module, "open_model", lambda request: Painter(size=(64, 64)))
    settings, words = ["prompts=1", "images=1", "features=false"], {"config": None, "options": []}
    sweep = ["guidance=1,2", "steps=1,2", "solver=euler,heun"]
    text = command("tinyworld", changes={"out": tmp_path}, settings=settings, sweep=sweep, **words)  # type: ignore[arg-type]
    assert "| drawing |" in text.splitlines()[0] and len(text.splitlines()) == 12
    assert {row["score"] for row in json.loads((tmp_path / "sweep.json").read_text())} == {0.0}
    page = (tmp_path / "sweep.svg").read_text()
    assert all(f"<!-- {label} -->" in page for label in ("guidance", "steps", "network evaluations, at most", "heun"))
    assert text.startswith("| guidance | steps | solver |") and (tmp_path / "guidance=1,steps=2,solver=heun").is_dir()
    report = json.loads(next(tmp_path.glob("*/report.json")).read_text())
    assert report["options"].keys() == {"guidance_scale", "num_inference_steps", "solver"}
    assert report["settings"]["questions"] == 0 and "answering" not in report["scores"]


def test_a_sweep_over_answering_or_with_questions_that_are_asked_for_asks(tmp_path: Path) -> None:
    plain, own = (EvalRequest("tinyworld", tmp_path, settings=words) for words in ({}, {"questions": 3}))
    assert _for_sweep(plain, ["max_new_tokens", "solver"]) == (plain, "overall")
    request, shown = _for_sweep(own, ["solver"])
    assert request.settings["questions"] == 3 and shown == "drawing"
    assert _for_sweep(plain, ["solver"])[0].settings == {"questions": 0, "all_kinds": False, "features": False}


def test_a_sweep_refuses_a_limit_that_leaves_out_parts_of_its_score(tmp_path: Path) -> None:
    words: Any = {"config": None, "options": [], "settings": ["images=1"]}
    said = (
        r"--limit 3 leaves out parts that the score 'drawing' needs \(.* and \d others|--limit 3 leaves out .*'drawing'"
    )
    with pytest.raises(ValueError, match=said):
        command("tinyworld", changes={"out": tmp_path, "limit": 3}, sweep=["guidance=1,2"], **words)
    with pytest.raises(ValueError, match="--limit 3 leaves out parts that the score 'overall' needs"):
        command("tinyworld", changes={"out": tmp_path, "limit": 3}, sweep=["model=tiny,tiny2"], **words)
    assert not list(tmp_path.iterdir())


def test_a_scene_can_show_every_dense_prompt() -> None:
    for task in tasks("dense", 60, held_out=False):
        rng = Random(task.prompt)
        assert any(scene_for(rng, task, training=False) for _ in range(200)), task.prompt


def test_a_shape_answers_for_one_clause_of_a_dense_prompt() -> None:
    task = Task("dense", "", (Clause("star", color="red"), Clause("star", 2), Clause("cross")))
    red, blue = (Shape("star", color, 30, 30, 8, (0, 0, 0)) for color in ("red", "blue"))
    for stars, found, two in (((red, blue, blue), True, True), ((red,), False, False), ((red, red, red), True, True)):
        answers = dense_answers(task, Scene(stars, "white", (255, 255, 255)))
        assert (answers["2: star?"], answers["2: two stars?"], answers["1: star red?"]) == (found, two, True)


def test_prompts_are_distinct_and_those_never_seen_are_in_no_training_pair() -> None:
    for kind in HELD_OUT_KINDS:
        seen, held = (tasks(kind, 40, held_out=flag) for flag in (False, True))
        prompts = [task.prompt for task in (*seen, *held)]
        assert len(set(prompts)) == len(prompts)
        trained = {sample_pair(Random(f"training-{n}"), kind)[0].prompt for n in range(2000)}
        assert not trained & {task.prompt for task in held}
