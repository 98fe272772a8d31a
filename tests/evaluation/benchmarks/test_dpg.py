"""DPG-Bench: its file, the rule of parents, both ways to score, and the grids."""

from __future__ import annotations

import csv
import os
from collections import defaultdict
from pathlib import Path
from random import Random
from typing import Any

import pytest
from PIL import Image

from janusflow.evaluation.benchmarks.dpg import (
    COLUMNS,
    Dpg,
    DpgQuestion,
    DpgSettings,
    by_prompt,
    read_questions,
    says_yes,
    zeroed,
)
from janusflow.evaluation.protocol import Item, NotJudgedError, Row
from janusflow.evaluation.request import EvalRequest
from janusflow.evaluation.run.evaluate import evaluate
from janusflow.processing.images import load_image
from tests.evaluation.benchmarks.test_geneval import Oracle, Painter, paint, run

OFFICIAL = Path(os.environ.get("JANUSFLOW_BENCHMARKS", "/nowhere"))
ROWS = [  # item_id, proposition_id, dependency, tuple, question
    ("p1", 1, "0", "entity - whole (cat)", "Is there a cat?"),
    ("p1", 2, "1", "attribute - color (cat, red)", "Is the cat red?"),
    ("p1", 3, "2", "attribute - size (cat, red, big)", "Is the red cat big?"),
    ("p2", 1, "0", "entity - whole (dog)", "Is there a dog?"),
    ("p2", 2, "0,1", "entity - part (dog's tail)", "Has the dog a tail?"),
]


def write_csv(file: Path, rows: Any = ROWS) -> Path:
    with file.open("w", newline="") as stream:
        writer = csv.writer(stream)
        writer.writerow(COLUMNS)
        writer.writerows(
            [name, "a text", "a word", number, on, "", "", what, asked] for name, number, on, what, asked in rows
        )
    return file


def dpg_folder(folder: Path) -> Path:
    """Two prompts: questions in a line of three, and of two."""
    (folder / "prompts").mkdir(parents=True)
    (folder / "prompts" / "p1.txt").write_text("a big red cat\n")
    (folder / "prompts" / "p2.txt").write_text("a dog with a tail")
    write_csv(folder / "dpg_bench.csv")
    return folder


@pytest.fixture
def data(tmp_path: Path) -> Path:
    return dpg_folder(tmp_path / "data")


def judged(data: Path, settings: DpgSettings, answers: dict[str, list[tuple[int, ...]]]) -> tuple[Dpg, list[Row]]:
    """Rows with given answers: of each prompt, for each of its pictures."""
    benchmark, rows = Dpg(data, settings), []
    for item in benchmark.items():
        said = answers[item.group][item.data["image"]]
        rows.append(Row(item, "", {"score": 0, "answers": {str(n): a for n, a in enumerate(said, start=1)}}))
    return benchmark, rows


def question(number: int, *parents: int) -> DpgQuestion:
    return DpgQuestion(number, "?", parents, "entity - whole")


def test_a_no_goes_down_the_line_in_the_order_of_the_file() -> None:
    line = [question(1), question(2, 1), question(3, 2), question(4)]
    assert list(zeroed(line, {1: 0, 2: 1, 3: 1, 4: 1}).values()) == [0, 0, 0, 1]
    assert list(zeroed(line, {1: 1, 2: 0, 3: 1, 4: 1}).values()) == [1, 0, 0, 1]
    backwards = [question(1), question(3, 2), question(2, 1)]
    assert zeroed(backwards, {1: 0, 2: 1, 3: 1}) == {1: 0, 3: 1, 2: 0}, "2 was still yes when 3 was looked at"
    assert zeroed([question(1, 9, 2), question(2)], {1: 1, 2: 1}) == {1: 1, 2: 1}, "there is no question 9"


@pytest.mark.parametrize(
    ("reply", "yes"),
    [("yes", True), ("Yes.", True), ("**Yes**, it is", True), ("no", False), ("yesterday", False), ("not yes", False)],
)
def test_replies(reply: str, yes: bool) -> None:
    assert says_yes(reply) is yes


def test_fixed_scores_by_hand(data: Path) -> None:
    answers = {"p1": [(1, 1, 1), (0, 1, 1), (1, 0, 1), (1, 1, 0)], "p2": [(1, 1), (1, 0), (0, 1), (1, 1)]}
    benchmark, rows = judged(data, DpgSettings(mode="fixed"), answers)
    scores = benchmark.scores(rows)
    p1, p2 = (3 + 0 + 1 + 2) / 3 / 4, (2 + 1 + 0 + 2) / 2 / 4
    assert scores["overall"] == pytest.approx(100 * (p1 + p2) / 2)
    assert scores["attribute - color"] == 50 and scores["attribute - size"] == 25
    assert scores["attribute"] == pytest.approx(100 * (2 + 1) / 8)
    assert scores["entity"] == pytest.approx(100 * (3 + 3 + 2) / 12) and scores["entity - part"] == 50
    assert benchmark.scores([*rows[:4], *rows[:4], *rows[4:]])["overall"] == pytest.approx(100 * (2 * p1 + p2) / 3)
    assert benchmark.scores(rows[4:])["overall"] == pytest.approx(100 * p2) and benchmark.scores([]) == {}


def test_official_scores_have_both_faults(data: Path) -> None:
    answers = {"p1": [(1, 1, 1)] * 4, "p2": [(1, 1), (1, 0), (1, 1), (0, 1)]}
    benchmark, rows = judged(data, DpgSettings(), answers)
    scores = benchmark.scores(rows)
    assert scores["overall"] == pytest.approx(100 * (2 + 1 + 2 + 0) / 2 / 4), "p1 has lost its first question: left out"
    assert scores["entity - whole"] == 0, "of the last picture alone"
    assert scores["entity - part"] == 100, "and before zeroing"
    assert "attribute" not in scores


def test_official_keeps_a_first_prompt_that_can_do_without_its_first_question(data: Path) -> None:
    write_csv(data / "dpg_bench.csv", [*((*row[:2], "0", *row[3:]) for row in ROWS[:3]), *ROWS[3:]])
    answers = {"p1": [(0, 1, 1)] * 4, "p2": [(0, 0)] * 4}
    benchmark, rows = judged(data, DpgSettings(), answers)
    assert benchmark.scores(rows)["overall"] == 50


def test_all_of_it(data: Path, tmp_path: Path) -> None:
    benchmark = Dpg(data, DpgSettings(mode="fixed", resolution=16, seed=5))
    benchmark.out = tmp_path / "out"
    oracle = Oracle("Yes.", "no", "yes", "yes")  # of the first picture; then yes
    benchmark.judge_model = oracle
    painter = Painter()
    rows = run(benchmark, painter)
    assert painter.prompts == ["a big red cat"] * 4 + ["a dog with a tail"] * 4 and painter.seeds == [5, 6, 7, 8] * 2
    assert rows[0].verdict == {"score": pytest.approx(1 / 3), "answers": {"1": 1, "2": 0, "3": 1}}
    assert len(oracle.asked) == 3 * 4 + 2 * 4 and oracle.asked[1][0].startswith("Is the cat red?")
    assert oracle.asked[0][1][0].size == (16, 16), "the judge sees what stands in the grid"
    assert benchmark.scores(rows)["overall"] == pytest.approx(100 * ((1 / 3 + 3) / 4 + 1) / 2)

    benchmark.write_official(rows[:-1])
    assert [file.name for file in (benchmark.out / "grids").iterdir()] == ["p1.png"], "p2 lacks a picture"
    benchmark.write_official(rows[::-1])
    sheet = load_image(benchmark.out / "grids" / "p2.png")
    assert sheet.size == (32, 32)
    cells = [sheet.getpixel(place) for place in ((8, 8), (24, 8), (8, 24), (24, 24))]
    assert cells == [paint("a dog with a tail", seed) for seed in (5, 6, 7, 8)]


def test_its_grids_need_no_judge(data: Path, tmp_path: Path) -> None:
    request = EvalRequest("dpg", tmp_path / "run", data=data, mode="generate", limit=7)
    assert evaluate(request, model=Painter())["done"] == 7
    assert [file.name for file in (tmp_path / "run" / "grids").iterdir()] == ["p2.png"], "p1 lacks a picture"


def test_without_a_verdict_it_is_not_judged(data: Path) -> None:
    benchmark, picture = Dpg(data, DpgSettings(threads=3)), Image.new("RGB", (8, 8))
    assert benchmark.threads == 3
    with pytest.raises(ValueError, match="name one with --set judge="):
        benchmark.judge(benchmark.items()[0], picture)
    benchmark.judge_model = Oracle("")
    with pytest.raises(NotJudgedError, match="oracle said nothing"):
        benchmark.judge(benchmark.items()[0], picture)


def test_missing_or_damaged_data_is_named(data: Path, tmp_path: Path) -> None:
    file = data / "dpg_bench.csv"
    for text, said in (
        ("a,b\n", "line 1 is not"),
        (f"{','.join(COLUMNS)}\np1,2\n", "line 2 is not"),
        (f"{','.join(COLUMNS)}\np1,t,k,1,right,b,d,t,q\n", "line 2 is not.*numbers between commas"),
        (f"{','.join(COLUMNS)}\np1,t,k,one,0,b,d,t,q\n", "line 2 is not"),
        (f"{','.join(COLUMNS)}\np1,t,k,1,0,b,d,t,q\n", "has no question on p2"),
    ):
        file.write_text(text)
        with pytest.raises(ValueError, match=said):
            Dpg(data, DpgSettings()).items()
    file.write_bytes(b"\xff\xfe")
    with pytest.raises(ValueError, match="dpg_bench.csv: line"):
        Dpg(data, DpgSettings()).items()
    file.unlink()
    for folder, said in ((data, "has no dpg_bench.csv"), (None, "needs a folder")):
        with pytest.raises(ValueError, match=said):
            Dpg(folder, DpgSettings()).items()
    write_csv(tmp_path / "dpg_bench.csv")
    with pytest.raises(ValueError, match="prompts has no prompts"):
        Dpg(tmp_path, DpgSettings()).items()
    with pytest.raises(ValueError, match="setting resolution of dpg: .*greater than or equal to 0"):
        EvalRequest("dpg", tmp_path, settings={"resolution": -1}).open()
    with pytest.raises(ValueError, match="setting mode of dpg: .*'official' or 'fixed' .given: 'both'"):
        EvalRequest("dpg", tmp_path, settings={"mode": "both"}).open()


@pytest.mark.skipif(not OFFICIAL.is_dir(), reason="set JANUSFLOW_BENCHMARKS to a folder of official files")
def test_the_official_prompts_and_files_of_the_same_form(tmp_path: Path) -> None:
    prompts = OFFICIAL / "dpg_bench" / "prompts"
    names = sorted(file.stem for file in prompts.glob("*.txt"))
    assert len(names) == 1065
    (tmp_path / "prompts").symlink_to(prompts)
    write_csv(tmp_path / "dpg_bench.csv", [(name, 1, "0", "entity - whole (x)", "Is it?") for name in names])
    assert len(Dpg(tmp_path, DpgSettings()).items()) == 4260

    with pytest.raises(ValueError, match=r"line \d+ is not DPG-Bench's .*expected columns"):
        read_questions(OFFICIAL / "dsg" / "data" / "dsg-1k-anns.csv")
    found = read_questions(OFFICIAL / "dsg" / "data" / "tifa160-dev-anns.csv")
    assert len(found) == 160 and found["coco_62896"][0].category == "entity - whole"
    rng, rows, shares = Random(0), [], []
    for name, questions in found.items():
        answers = {one.number: int(rng.random() < 0.7) for one in questions}
        data = {"image": 0, "questions": [vars(one) for one in questions]}
        verdict = {"score": 0, "answers": {str(number): said for number, said in answers.items()}}
        rows.append(Row(Item(f"{name}/0", "", group=name, data=data), "", verdict))
        for one in questions:  # the rule, written once more
            for parent in one.parents:
                if answers.get(parent, 1) == 0:
                    answers[one.number] = 0
        shares.append(sum(answers.values()) / len(answers))
    scores = Dpg(None, DpgSettings(mode="fixed")).scores(rows)
    assert scores["overall"] == pytest.approx(100 * sum(shares) / 160)
    assert {"entity", "attribute", "relation", "other", "global"} <= set(scores)
    assert len(by_prompt(rows * 3)) == 480


@pytest.mark.skipif(not OFFICIAL.is_dir(), reason="set JANUSFLOW_BENCHMARKS to a folder of official files")
def test_the_official_answers_of_mplug() -> None:
    """DSG's release: mPLUG's answers about pictures of five models, in the form that DPG-Bench takes over."""
    judged: dict[tuple[str, str], dict[int, tuple[DpgQuestion, int]]] = defaultdict(dict)
    shifted = 0
    with (OFFICIAL / "dsg" / "vqa_answers_release" / "mplug_dsg.csv").open(newline="") as stream:
        for line in csv.DictReader(stream):
            try:
                parents = tuple(int(one) for one in line["dependency_id"].split(",") if int(one))
                number = int(line["question_id"])
            except ValueError:  # a comma of the question has moved the columns
                shifted += 1
                continue
            asked = DpgQuestion(number, line["question"], parents, "entity - whole")
            judged[line["t2i_model"], line["item_id"]][number] = asked, int(says_yes(line["answer"]))
    assert shifted == 14 and len(judged) == 1695

    def score(model: str, name: str) -> float:
        questions = judged[model, name].values()
        answers = {str(asked.number): said for asked, said in questions}
        data = {"image": 0, "questions": [vars(asked) for asked, _ in questions]}
        row = Row(Item(f"{name}/0", "", group=name, data=data), "", {"score": 0, "answers": answers})
        return Dpg(None, DpgSettings(mode="fixed")).scores([row])["overall"]

    # By hand: "man: yes, suit: no, green suit: yes, man leaning over a laptop: yes" needs the suit twice.
    assert score("mini-dalle", "tifa160_6") == 25
    # Motorcycle yes, no doors; so neither is their paint chipped nor do they stand next to it, whatever was answered.
    assert score("mini-dalle", "tifa160_12") == pytest.approx(100 * 3 / 6)
    for (model, name), questions in judged.items():  # the rule once more: one needs all that it stands on, at any depth
        no = {number for number, (_, said) in questions.items() if not said}
        for number, (asked, _) in questions.items():
            if no.intersection(asked.parents):
                no.add(number)
        assert score(model, name) == pytest.approx(100 * (1 - len(no) / len(questions))), (model, name)


@pytest.mark.parametrize("thoughts", ["<think>no, perhaps</think>\n", "no, perhaps</think>", "<thinking>no</thinking>"])
def test_a_judge_that_reasons_is_read_without_its_thoughts(data: Path, thoughts: str) -> None:
    benchmark, picture = Dpg(data, DpgSettings(mode="fixed")), Image.new("RGB", (8, 8))
    benchmark.judge_model = Oracle(f"{thoughts}Yes.")
    assert benchmark.judge(benchmark.items()[0], picture) == {"score": 1, "answers": {"1": 1, "2": 1, "3": 1}}
    benchmark.judge_model = Oracle("<think>It could be")
    with pytest.raises(NotJudgedError, match="cut off before its thoughts end; give it more tokens"):
        benchmark.judge(benchmark.items()[0], picture)


def test_replies_that_are_neither_yes_nor_no_are_counted(data: Path) -> None:
    benchmark = Dpg(data, DpgSettings(mode="fixed"))
    benchmark.judge_model = Oracle("Yes.", "A cat.", "no")
    verdict = benchmark.judge(benchmark.items()[0], Image.new("RGB", (8, 8)))
    assert verdict["answers"] == {"1": 1, "2": 0, "3": 0} and verdict["unreadable"] == 1
