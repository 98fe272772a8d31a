"""MJHQ-30k from end to end with a small TorchScript module in Inception's place and a small CLIP."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from janusflow.evaluation.benchmarks.mjhq import Mjhq, MjhqSettings
from janusflow.evaluation.vision.frechet import Features, frechet_distance
from tests.evaluation.benchmarks.test_geneval import Painter, run
from tests.evaluation.vision.test_detection import save_clip
from tests.evaluation.vision.test_frechet import save_inception

PROMPTS = {
    "a1": ("a red cat", "animals"),
    "f1": ("a blue dog", "food"),
    "a2": ("a photo of a dog", "animals"),
    "f2": ("a cat", "food"),
}


def mjhq_folder(folder: Path) -> Path:
    """Four pictures of two categories."""
    for index, (name, (_, category)) in enumerate(PROMPTS.items()):
        (folder / category).mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (30, 50), (60 * index, 90, 20 * index)).save(folder / category / f"{name}.jpg")
    records = {name: {"prompt": prompt, "category": category} for name, (prompt, category) in PROMPTS.items()}
    (folder / "meta_data.json").write_text(json.dumps(records))
    return folder


@pytest.fixture
def data(tmp_path: Path) -> Path:
    return mjhq_folder(tmp_path / "data")


def test_all_of_it(data: Path, tmp_path: Path) -> None:
    save_clip(tmp_path / "clip")
    inception = save_inception(tmp_path / "inception.pt")
    settings = MjhqSettings(inception=str(inception), clip=str(tmp_path / "clip"), seed=7, device="cpu", eval_size=32)
    benchmark = Mjhq(data, settings)
    benchmark.out = tmp_path / "out"
    painter = Painter()
    rows = run(benchmark, painter)
    assert painter.prompts == [prompt for prompt, _ in PROMPTS.values()] and painter.seeds == [7, 8, 9, 10]
    assert rows[0].output == "images/animals/a1.png"

    features = Features.open(inception, device="cpu", eval_size=32)
    drawn = [Image.open(benchmark.out / row.output) for row in rows]
    chosen = [Image.open(data / category / f"{name}.jpg") for name, (_, category) in PROMPTS.items()]
    fid = frechet_distance(features(drawn), features(chosen))
    anew = Mjhq(data, settings)
    anew.out = benchmark.out
    scores = anew.scores(rows)
    assert fid > 0.1 and scores["fid"] == pytest.approx(fid, rel=1e-5)
    assert scores["clip"] == pytest.approx(np.mean([row.score for row in rows]))
    likeness = benchmark.clip.pictures(drawn[1:2]) @ benchmark.clip.texts(["a blue dog"]).T
    assert rows[1].score == pytest.approx(100 * float(likeness), rel=1e-4)
    assert anew.scores([rows[0], rows[0], rows[2]])["clip"] == pytest.approx((2 * rows[0].score + rows[2].score) / 3)
    assert "fid" not in anew.scores(rows[:1]) and anew.scores([]) == {}

    (benchmark.out / rows[0].verdict["features"]).write_bytes(b"")
    with pytest.raises(ValueError, match=r"features/animals/a1-\w+\.npy is missing or damaged"):
        anew.scores(rows)


def test_features_are_those_of_the_pictures_that_were_judged(data: Path, tmp_path: Path) -> None:
    """A corrected picture that is reverted gets its old verdict again, which must not come with other features."""
    settings = MjhqSettings(inception=str(save_inception(tmp_path / "i.pt")), clip="", device="cpu", eval_size=32)
    benchmark = Mjhq(data, settings)
    benchmark.out = tmp_path / "out"
    rows = run(benchmark, Painter())
    before = benchmark.scores(rows)
    benchmark.judge(rows[0].item, Image.new("RGB", (8, 8), "white"))
    file = data / rows[0].item.data["category"] / f"{rows[0].item.data['id']}.jpg"
    kept = file.read_bytes()
    Image.new("RGB", (30, 50), "white").save(file)
    benchmark.judge(rows[0].item, Image.open(benchmark.out / rows[0].output))
    file.write_bytes(kept)
    assert benchmark.scores(rows) == before


def test_the_first_of_each_category(data: Path) -> None:
    items = Mjhq(data, MjhqSettings(per_category=1)).items()
    assert [(item.key, item.seed) for item in items] == [("animals/a1", 0), ("food/f1", 1)]


def test_a_model_is_needed() -> None:
    with pytest.raises(ValueError, match="needs one, FID with --set inception=FILE"):
        MjhqSettings(clip="")


def test_fid_alone(data: Path, tmp_path: Path) -> None:
    benchmark = Mjhq(data, MjhqSettings(inception=str(save_inception(tmp_path / "i.pt")), clip="", device="cpu"))
    benchmark.out = tmp_path / "out"
    assert list(benchmark.scores(run(benchmark, Painter()))) == ["fid"]


def test_missing_or_damaged_data_is_named(data: Path, tmp_path: Path) -> None:
    (data / "food" / "f1.jpg").unlink()
    assert len(Mjhq(data, MjhqSettings()).items()) == 4, "CLIP needs no chosen pictures"
    with pytest.raises(ValueError, match="f1.jpg does not exist; expected"):
        Mjhq(data, MjhqSettings(inception="i.pt")).items()
    for content in (
        b"{",
        b"\xff",
        b"[]",
        b'{"a": {"prompt": "x"}}',
        b'{"a": {"prompt": 1, "category": "x"}}',
        b'{"a": 3}',
    ):
        (data / "meta_data.json").write_bytes(content)
        with pytest.raises(ValueError, match="meta_data.json.*expected a JSON object"):
            Mjhq(data, MjhqSettings()).items()
    for nowhere, said in ((None, "MJHQ-30k needs a folder with its files"), (tmp_path, "has no meta_data.json")):
        with pytest.raises(ValueError, match=said):
            Mjhq(nowhere, MjhqSettings()).items()
