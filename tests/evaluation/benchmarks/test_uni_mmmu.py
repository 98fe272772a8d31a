"""Uni-MMMU's code task from end to end, and why the other tasks are refused."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from PIL import Image

from janusflow.evaluation.benchmarks.uni_mmmu import TASKS, UniMmmu, UniMmmuSettings, read_numbers, summary
from janusflow.evaluation.protocol import NotJudgedError
from tests.evaluation.benchmarks.test_geneval import Oracle, Painter, run

WANTED = {"shape_color_accuracy": 5, "position_accuracy": 5}


def uni_mmmu_folder(top: Path) -> Path:
    """Two cases."""
    folder = top / "svg"
    folder.mkdir(parents=True)
    samples = []
    for index, color in enumerate(("red", "blue")):
        (folder / f"{index}.svg").write_text(f"<svg><rect fill='{color}'/></svg>")
        Image.new("RGB", (20, 20), color).save(folder / f"{index}.png")
        samples.append({"id": f"A{index}", "difficulty": "easy", "svg": f"{index}.svg", "png": f"{index}.png"})
    (folder / "metadata.json").write_text(json.dumps({"samples": samples}))
    return top


@pytest.fixture
def data(tmp_path: Path) -> Path:
    return uni_mmmu_folder(tmp_path / "data")


def scored(shapes: int, places: int) -> str:
    return json.dumps({"shape_color_accuracy": shapes, "position_accuracy": places, "explanation": "x"})


def test_all_of_it(data: Path, tmp_path: Path) -> None:
    benchmark = UniMmmu(data, UniMmmuSettings(model_name="tiny", seed=4))
    benchmark.out = tmp_path / "out"
    oracle = Oracle(
        scored(5, 4), '{"text_semantic_match": 1}', "no", f"so {scored(1, 0)}", '{"text_semantic_match": 0}'
    )
    benchmark.judge_model = oracle
    painter = Painter(saying="a red square")
    rows = run(benchmark, painter, {"guidance_scale": 5})
    assert painter.seeds == [4, 5] and painter.options == {"guidance_scale": 5}
    assert "<rect fill='blue'/>" in painter.prompts[1] and "a red square" in painter.prompts[1]
    assert [row.output for row in rows] == [f"outputs/tiny/code/case_0{n}_A{n - 1}/model_image_01.png" for n in (1, 2)]
    assert [row.score for row in rows] == pytest.approx([(1 + 0.8 + 1) / 3, 0.2 / 3])
    assert [len(pictures) for _, pictures, _ in oracle.asked] == [2, 1, 2, 2, 1]
    assert oracle.asked[0][1][0].getpixel((0, 0)) == (255, 0, 0), "the reference comes first"
    assert "a red square" in oracle.asked[1][0] and oracle.asked[3][2] == 1
    assert benchmark.scores(rows) == pytest.approx(
        {"shape_color": 3, "position": 2, "text": 0.5, "overall": 100 * (2.8 + 0.2) / 6}
    )
    assert benchmark.scores([rows[0]] * 2)["shape_color"] == 5 and benchmark.scores([]) == {}

    benchmark.write_official(rows)
    case = benchmark.out / "outputs" / "tiny" / "code" / "case_02_A1"
    assert sorted(file.name for file in case.iterdir()) == ["model_image_01.png", "model_text.txt", "result.json"]
    assert (case / "model_text.txt").read_text() == "<RENDER_SUMMARY>a red square</RENDER_SUMMARY>"
    assert rows[0].verdict["description"] == "a red square"
    record = json.loads((case / "result.json").read_text())
    assert record["id"] == "case_02_A1" and (benchmark.out / record["images_saved"][0]).is_file()


def test_an_empty_description_does_not_match(data: Path, tmp_path: Path) -> None:
    benchmark = UniMmmu(data, UniMmmuSettings())
    benchmark.out = tmp_path / "out"
    benchmark.judge_model = Oracle(scored(5, 5))
    assert [row.verdict["text"] for row in run(benchmark, Painter(saying=""))] == [0, 0]


def test_without_a_verdict_it_is_not_judged(data: Path, tmp_path: Path) -> None:
    benchmark = UniMmmu(data, UniMmmuSettings())
    benchmark.out, picture = tmp_path, Image.new("RGB", (8, 8))
    with pytest.raises(ValueError, match="name one with --set judge="):
        benchmark.judge(benchmark.items()[0], picture)
    benchmark.judge_model = Oracle(scored(6, 0))
    with pytest.raises(NotJudgedError, match="oracle gave no score in 3 tries"):
        benchmark.judge(benchmark.items()[0], picture)


def test_a_description_is_what_the_official_tags_hold() -> None:
    assert summary("It shows\n<render_summary>\n a star\n</RENDER_SUMMARY> as asked") == "a star"
    assert summary(" a star\n") == "a star" and summary("<RENDER_SUMMARY> </RENDER_SUMMARY>") == ""


@pytest.mark.parametrize(
    ("reply", "values"),
    [
        (scored(3, 0), (3, 0)),
        (f"```json\n{scored(3, 5)}\n```", (3, 5)),
        (f"{scored(3, 5)} no, {scored(1, 2)}", (1, 2)),
        ('{"shape_color_accuracy": 3}', None),
        ('{"shape_color_accuracy": 3.5, "position_accuracy": 1}', None),
        ('{"shape_color_accuracy": true, "position_accuracy": "4"}', (1, 4)),
        ('{"shape_color_accuracy": 3.0, "position_accuracy": 1, "explanation": "{a} is missing"}', (3, 1)),
        ('{"scores": {"shape_color_accuracy": 2, "position_accuracy": 1}}', (2, 1)),
        ('{"shape_color_accuracy": NaN, "position_accuracy": 1}', None),
        ('{"shape_color_accuracy": null, "position_accuracy": 1}', None),
        (scored(3, 6), None),
        (scored(-1, 2), None),
        ("{", None),
        ("", None),
    ],
)
def test_replies(reply: str, values: tuple[int, ...] | None) -> None:
    found = read_numbers(reply, WANTED)
    assert (None if found is None else tuple(found.values())) == values


@pytest.mark.parametrize("task", [task for task in TASKS if task != "code"])
def test_other_tasks_cannot_be_done(task: str) -> None:
    with pytest.raises(ValueError, match=f"task {task} of Uni-MMMU asks for editing of given pictures"):
        UniMmmuSettings(task=task)


def test_settings_that_cannot_be(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="task is 'chess'"):
        UniMmmuSettings(task="chess")
    with pytest.raises(ValueError, match="model_name is 'a/b'"):
        UniMmmuSettings(model_name="a/b")


def test_missing_or_damaged_data_is_named(data: Path, tmp_path: Path) -> None:
    file = data / "svg" / "metadata.json"
    good = json.loads(file.read_text())
    for content in (b"{", b"\xff", b"[]", b"{}", b'{"samples": [{"id": "a"}]}', b'{"samples": [3]}'):
        file.write_bytes(content)
        with pytest.raises(ValueError, match="metadata.json is damaged or not Uni-MMMU's.*samples have id"):
            UniMmmu(data, UniMmmuSettings()).items()
    file.write_text(json.dumps(good))
    (data / "svg" / "1.png").unlink()
    with pytest.raises(ValueError, match="1.png, which .*metadata.json names, does not exist"):
        UniMmmu(data, UniMmmuSettings()).items()
    for folder, said in ((tmp_path / "nowhere", "has no svg/metadata.json"), (None, "needs a folder")):
        with pytest.raises(ValueError, match=said):
            UniMmmu(folder, UniMmmuSettings()).items()
