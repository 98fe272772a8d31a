"""GenEval's rules: counts, thresholds, exclusions, colors and positions, each at its boundary."""

from __future__ import annotations

import json
import os
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from janusflow.evaluation.benchmarks.geneval import (
    MOST,
    TAGS,
    Clause,
    Detection,
    GenEval,
    GenEvalSettings,
    GenEvalTask,
    kept,
    overall,
    problem,
    read_records,
    relations,
)
from janusflow.evaluation.protocol import Benchmark, Row
from janusflow.evaluation.request import EvalRequest
from janusflow.evaluation.run.evaluate import evaluate

OFFICIAL = Path(os.environ.get("JANUSFLOW_BENCHMARKS", "/nowhere"))


class Painter:
    """Stands in for a model: returns pictures of one color that depends on prompt and seed, and records its calls."""

    def __init__(self, size: tuple[int, int] = (32, 24), saying: str = "a drawing") -> None:
        self.size, self.saying, self.prompts, self.seeds = size, saying, list[str](), list[int]()
        self.options: dict[str, Any] = {}

    def generate(
        self, prompts: Sequence[str], *, seed: Sequence[int], batch_size: int, progress: bool, **options: Any
    ) -> list[Image.Image]:
        assert batch_size == len(prompts) == len(seed) and not progress
        self.prompts, self.seeds, self.options = [*self.prompts, *prompts], [*self.seeds, *seed], options
        return [Image.new("RGB", self.size, paint(*pair)) for pair in zip(prompts, seed, strict=True)]

    def chat_batch(self, conversations: Sequence[Any], **options: Any) -> list[str]:
        return [f" {self.saying} " for _ in conversations]


def paint(prompt: str, seed: int) -> tuple[int, int, int]:
    return (sum(prompt.encode()) % 256, 40 * seed % 256, 255)


class Oracle:
    """Stands for a judging model: replies in turn, the last for ever, and remembers what it was asked."""

    name = "oracle"

    def __init__(self, *replies: str) -> None:
        self.replies, self.asked = list(replies), list[tuple[str, list[Image.Image], int]]()

    def reply(
        self, prompt: str, images: Any = (), *, system: str = "", temperature: float = 0.0, attempt: int = 0
    ) -> str:
        self.asked.append((prompt, list(images), attempt))
        return self.replies.pop(0) if len(self.replies) > 1 else self.replies[0]


def run(benchmark: Benchmark, model: Any, options: Mapping[str, Any] | None = None) -> list[Row]:
    """All of a benchmark as a run does it: pictures go over the disk, data and verdicts through JSON."""
    items, rows = benchmark.items(), []
    assert len({item.key for item in items}) == len(items)
    for item, picture in zip(items, benchmark.produce(model, items, options or {}), strict=True):
        assert isinstance(picture, Image.Image) and json.loads(json.dumps(dict(item.data))) == dict(item.data)
        file = benchmark.out / benchmark.place(item)
        file.parent.mkdir(parents=True, exist_ok=True)
        picture.save(file)
        verdict = json.loads(json.dumps(benchmark.judge(item, Image.open(file))))
        rows.append(Row(item, benchmark.place(item), verdict))
    return rows


def at(name: str, x: float, y: float, *, score: float = 0.95, size: float = 10) -> Detection:
    """An object with its center at (x, y)."""
    half = size / 2
    return Detection(name, score, (x - half, y - half, x + half, y + half))


def no_colors(objects: Sequence[Detection]) -> list[str]:
    raise AssertionError("no color is asked for")


def test_enough_of_each_class() -> None:
    task = GenEvalTask("two_object", "a cat and a dog", (Clause("cat", 1), Clause("dog", 1)))
    assert problem(task, [at("cat", 0, 0), at("dog", 50, 0)], no_colors) == ""
    assert "dog >= 1, found 0" in problem(task, [at("cat", 0, 0), at("cat", 50, 0)], no_colors)


@pytest.mark.parametrize(
    ("tag", "score", "counts"), [("two_object", 0.3, 0), ("two_object", 0.31, 1), ("counting", 0.9, 0)]
)
def test_scores_must_be_above_the_threshold(tag: str, score: float, counts: int) -> None:
    assert len(kept([at("cat", 0, 0, score=score)], tag).get("cat", [])) == counts


def test_the_surest_sixteen_of_a_class_count() -> None:
    found = kept([at("cat", index, 0, score=0.5 + index / 100) for index in range(20)], "colors")["cat"]
    assert len(found) == MOST and found[0].score == pytest.approx(0.69) and found[-1].score == pytest.approx(0.54)


def test_counting_excludes_one_more() -> None:
    task = GenEvalTask("counting", "two cats", (Clause("cat", 2),), (Clause("cat", 3),))
    cats = [at("cat", 20 * index, 0) for index in range(4)]
    assert [problem(task, cats[:count], no_colors) == "" for count in range(5)] == [False, False, True, False, False]
    sure = [*cats[:2], at("cat", 90, 0, score=0.5)]
    assert problem(task, sure, no_colors) == "", "what is not sure is not counted"


def test_colors_of_the_surest_are_judged() -> None:
    task = GenEvalTask("colors", "a red cat", (Clause("cat", 1, color="red"),))
    cats = [at("cat", 0, 0, score=0.8), at("cat", 50, 0, score=0.9)]
    seen: list[int] = []

    def name(objects: Sequence[Detection]) -> list[str]:
        seen.append(len(objects))
        return ["red" if one.box[0] > 20 else "blue" for one in objects]

    assert problem(task, cats, name) == "" and seen == [1]
    assert "expected red cat, found blue" in problem(task, cats[:1], name)


def test_positions_need_a_target_that_is_right_itself() -> None:
    dog = Clause("dog", 1, position=("left of", 0))
    task = GenEvalTask("position", "a dog left of a cat", (Clause("cat", 1), dog))
    assert problem(task, [at("cat", 50, 0), at("dog", 0, 0)], no_colors) == ""
    assert "found right of" in problem(task, [at("cat", 0, 0), at("dog", 50, 0)], no_colors)
    assert "no target" in problem(task, [at("dog", 0, 0)], no_colors)
    pair = GenEvalTask(
        "position", "two dogs left of a cat", (Clause("cat", 1), Clause("dog", 2, position=("left of", 0)))
    )
    dogs = [at("dog", 0, 0), at("dog", 90, 0)]
    assert "expected dog left of" in problem(pair, [at("cat", 50, 0), *dogs], no_colors), "every pair must hold"


@pytest.mark.parametrize(
    ("dx", "dy", "held"),
    [
        (-50, 0, {"left of"}),
        (50, 0, {"right of"}),
        (0, -50, {"above"}),
        (0, 50, {"below"}),
        (50, 50, {"right of", "below"}),
        (100, 40, {"right of"}),
        (0, 0, set()),
        (2, 0, set()),  # a tenth of both sizes of 10 is 2
        (3, 0, set()),  # a third of the offset is left: not clear
        (4.1, 0, {"right of"}),  # more than half is left
        (4, 0, set()),  # exactly half is not
    ],
)
def test_relations(dx: float, dy: float, held: set[str]) -> None:
    assert relations(at("a", dx, dy).box, at("b", 0, 0).box) == held


def test_the_score_is_the_mean_of_six_shares() -> None:
    results = [(tag, True) for tag in TAGS] + [("counting", False)] * 3
    found = overall(results)
    assert found["counting"] == 0.25 and found["overall"] == pytest.approx((5 + 0.25) / 6)
    assert "overall" not in overall(results[1:])
    with pytest.raises(ValueError, match="tag is 'shapes'"):
        overall([("shapes", True)])


RECORDS = [
    {"tag": "single_object", "include": [{"class": "cat", "count": 1}], "prompt": "a cat"},
    {"tag": "colors", "include": [{"class": "cat", "count": 1, "color": "red"}], "prompt": "a red cat"},
]


def geneval_folder(folder: Path) -> Path:
    """Two prompts."""
    folder.mkdir()
    lines = "".join(json.dumps(record) + "\n" for record in RECORDS)
    (folder / "evaluation_metadata.jsonl").write_text(lines)
    (folder / "object_names.txt").write_text("cat\ndog\n")
    return folder


@pytest.fixture
def benchmark(tmp_path: Path) -> GenEval:
    """Two prompts of two pictures; every picture has a cat, which is red in a prompt's first picture."""
    found = GenEval(geneval_folder(tmp_path / "data"), GenEvalSettings(images=2, seed=3))
    found.out = tmp_path / "out"
    found.detector = lambda picture: [at("cat", 10, 10, score=0.8)]
    found.color_namer = lambda picture, objects: ["red" if picture.getpixel((0, 0))[1] == 120 else "blue"]
    return found


def test_all_of_it(benchmark: GenEval) -> None:
    painter = Painter()
    rows = run(benchmark, painter, {"guidance_scale": 3})
    assert painter.prompts == ["a cat", "a cat", "a red cat", "a red cat"] and painter.options == {"guidance_scale": 3}
    assert painter.seeds == [3, 4, 3, 4]
    assert [row.score for row in rows] == [1, 1, 1, 0] and rows[3].verdict["problem"] == "expected red cat, found blue"
    assert rows[0].verdict["objects"] == [{"name": "cat", "score": 0.8, "box": [5, 5, 15, 15]}]
    assert benchmark.scores(rows) == {"single_object": 1, "colors": 0.5, "images": 0.75, "prompts": 1}
    assert benchmark.scores([rows[3], rows[3], rows[0]]) == {
        "single_object": 1,
        "colors": 0,
        "images": pytest.approx(1 / 3),
        "prompts": pytest.approx(1 / 3),
    }
    assert benchmark.scores([]) == {}
    benchmark.write_official(rows)
    written = sorted(str(file.relative_to(benchmark.out / "images")) for file in benchmark.out.rglob("*.*"))
    assert written == [
        f"{prompt}/{file}"
        for prompt in ("00000", "00001")
        for file in ("metadata.jsonl", "samples/0000.png", "samples/0001.png")
    ]
    assert json.loads((benchmark.out / "images/00001/metadata.jsonl").read_text()) == RECORDS[1]


def test_its_folder_is_whole_before_anything_is_judged(benchmark: GenEval, tmp_path: Path) -> None:
    out = tmp_path / "run"
    request = EvalRequest("geneval", out, data=benchmark.data, mode="generate", settings={"images": 1})
    assert evaluate(request, model=Painter())["done"] == 2
    assert (out / "images/00001/samples/0000.png").is_file()
    assert json.loads((out / "images/00001/metadata.jsonl").read_text()) == RECORDS[1]


def test_the_published_scores_have_the_names_of_ours() -> None:
    for row in GenEval.published.values():
        assert set(row) <= {*TAGS, "overall"}
    paper = GenEval.published["JanusFlow 384 (paper)"]
    assert sum(paper[tag] for tag in TAGS) / 6 == pytest.approx(paper["overall"], abs=0.01)


def test_missing_data_is_named(tmp_path: Path) -> None:
    for data, said in ((None, "needs a folder"), (tmp_path, "has no evaluation_metadata.jsonl")):
        with pytest.raises(ValueError, match=said):
            GenEval(data, GenEvalSettings()).items()
    with pytest.raises(ValueError, match="setting images of geneval: .*greater than or equal to 1"):
        EvalRequest("geneval", tmp_path, settings={"images": 0}).open()


def test_other_files_are_refused(tmp_path: Path) -> None:
    file = tmp_path / "metadata.jsonl"
    for content, said in (
        ("{", "line 1"),
        ('{"tag": "x", "prompt": "a"}', "tag 'x'"),
        ('{"tag": "counting"}', "line 1"),
        (
            '{"tag": "position", "prompt": "a", "include": [{"class": "cat", "count": 1, "position": ["left of", 0]}]}',
            "line 1 .*placed relative to earlier ones",
        ),
    ):
        file.write_text(content)
        with pytest.raises(ValueError, match=said):
            read_records(file)


@pytest.mark.skipif(not OFFICIAL.is_dir(), reason="set JANUSFLOW_BENCHMARKS to a folder of official files")
def test_the_official_tasks() -> None:
    assert len(GenEval(OFFICIAL / "geneval", GenEvalSettings()).items()) == 4 * 553
    tasks = [task for _, task in read_records(OFFICIAL / "geneval" / "prompts" / "evaluation_metadata.jsonl")]
    counts = Counter(task.tag for task in tasks)
    assert [counts[tag] for tag in TAGS] == [80, 99, 80, 94, 100, 100]
    for task in tasks:
        for clause in task.exclude:
            assert clause.count == task.include[0].count + 1 and clause.name == task.include[0].name
        ideal = [
            at(clause.name, 300 + 40 * index, 300 + 60 * len(clause.name), size=5)
            for clause in task.include
            for index in range(clause.count)
        ]
        if task.tag in ("single_object", "two_object", "counting"):
            assert problem(task, ideal, no_colors) == ""
            assert problem(task, ideal[1:], no_colors)
