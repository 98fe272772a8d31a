"""The pictograms benchmark, end to end on small packages, with a random network as the judge's eyes."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from pyarrow import parquet

from janusflow.evaluation.protocol import Item, Output, Row
from janusflow.evaluation.reports.intervals import intervals
from janusflow.evaluation.request import EvalRequest
from janusflow.evaluation.run.eval_run import EvalRun
from janusflow.pictograms.benchmark import Pictograms, reconstructed
from janusflow.pictograms.evaluation import TUNING
from janusflow.pictograms.shards import files_of
from janusflow.pictograms.tasks import ASKED, KINDS, LIKE, OPEN, VAE, PictogramSettings, shares
from janusflow.processing.images import load_image
from tests.pictograms.conftest import RandomFeatures

SETTINGS = PictogramSettings(seen=4, unseen=3, pictures=24, open=4, open_seeds=2, questions=5, subjects=30)


class Codec:
    """A VAE that changes nothing, or makes everything grey."""

    def __init__(self, grey: bool = False) -> None:
        self.grey = grey

    def encode(self, pixels: torch.Tensor) -> torch.Tensor:
        assert pixels.min() >= -1 and pixels.max() <= 1
        return pixels * 0 if self.grey else pixels

    decode = encode


class Perfect:
    """Stands for a model: each prompt's own picture, and the right answers."""

    def __init__(self, benchmark: Pictograms, noise: bool = False) -> None:
        self.pictures = {row["captions"][0]: row["image"]["bytes"] for row in benchmark.real}
        self.pictures |= {row["captions"][1]: row["image"]["bytes"] for row in benchmark.real}
        self.codec, self.processor, self.noise = (
            Codec(grey=noise),
            SimpleNamespace(question=lambda text, n: text),
            noise,
        )

    def generate(self, prompts: Sequence[str], *, seed: Sequence[int], **options: Any) -> list[Image.Image]:
        assert "max_new_tokens" not in options
        if self.noise:
            pixels = np.random.default_rng(seed[0]).integers(0, 256, (len(prompts), 64, 64, 3), dtype=np.uint8)
            return [Image.fromarray(one) for one in pixels]
        return [load_image(self.pictures[prompt]).convert("RGB") for prompt in prompts]

    def chat_batch(self, conversations: Sequence[Any], **options: Any) -> list[str]:
        assert options["max_new_tokens"]
        return ["a fox" for _ in conversations]


@pytest.fixture
def benchmark(data: Path, features: RandomFeatures, tmp_path: Path) -> Pictograms:
    found = Pictograms(data, SETTINGS)
    found.features, found.out = features, tmp_path
    return found


def run(benchmark: Pictograms, model: Any) -> list[Row]:
    """All rows, as the runner makes them."""
    rows = []
    items = benchmark.items()
    for drawn in (True, False):
        part = [item for item in items if benchmark.drawn(item) == drawn]
        options = {"guidance_scale": 2.0} if drawn else {}
        for item, output in zip(part, benchmark.produce(model, part, options), strict=True):
            verdict = benchmark.judge(item, output)
            rows.append(Row(item, kept(benchmark, item, output), verdict))
    return rows


def kept(benchmark: Pictograms, item: Item, output: Output) -> str:
    if isinstance(output, str):
        return output
    file = benchmark.out / benchmark.place(item)
    file.parent.mkdir(parents=True, exist_ok=True)
    output.save(file)
    return benchmark.place(item)


def test_items_are_of_every_kind_and_the_same_each_time(benchmark: Pictograms) -> None:
    items = benchmark.items()
    kinds = {item.data["kind"] for item in items}
    there = {row["held_out"] for row in benchmark.real}
    assert kinds >= {"seen", LIKE, VAE, OPEN, "name", "asked style"} and kinds & set(KINDS) <= there
    assert [(item.key, item.prompt, item.seed) for item in benchmark.items()] == [
        (item.key, item.prompt, item.seed) for item in items
    ]
    assert len({item.key for item in items}) == len(items)


def test_seen_is_in_training_unseen_is_not_and_the_reference_is_apart(benchmark: Pictograms) -> None:
    held = {row["id"] for row in benchmark.real if row["held_out"]}
    reference = set(benchmark.fitted[0].names)
    for item in benchmark.items():
        kind, name = item.data["kind"], item.data["id"]
        assert (name in held) == (kind in KINDS or kind in ("name", "asked style"))
        assert kind not in (LIKE, VAE) or name not in reference


def test_what_the_judge_does_not_know_is_not_asked_for(benchmark: Pictograms) -> None:
    judge, targets = benchmark.fitted
    for item in benchmark.items():
        if item.data["kind"] in KINDS:
            assert judge.knows(targets[ASKED[item.data["kind"]][0]], item.data)


def test_open_prompts_name_no_style(benchmark: Pictograms) -> None:
    opened = [item for item in benchmark.items() if item.data["kind"] == OPEN]
    assert len(opened) == 8 and len({item.seed for item in opened}) == 8
    assert not any("style" in item.prompt for item in opened)
    assert all(
        sum(item.data["wanted"][factor].values()) == pytest.approx(1)
        for item in opened
        for factor in ("color", "place", "size", "background", "style")
    )


def test_a_model_that_repeats_training_scores_well_and_is_found_out(benchmark: Pictograms) -> None:
    rows = run(benchmark, Perfect(benchmark))
    scores = benchmark.scores(rows) | benchmark.scores_of_all(rows)
    assert scores["copies of training pictures"] > 0.5
    assert scores["as in training, background"] > 0.9
    assert scores["KID, generated"] == pytest.approx(scores["KID, reconstructions"], abs=0.01)
    assert scores["naming, exact"] == 0 and "naming, style" in scores
    assert 0 < scores["ceiling, subject, top-1"] <= scores["ceiling, subject, top-5"] <= 1
    assert "seen, top-5 of ceiling" in scores and "recall, generated" in scores
    assert len(benchmark.fitted[0].labels["shape"]) == 3 and "ceiling, shape, top-5" not in scores
    assert "ceiling, shape, top-1" in scores and "unseen color, top-5" not in scores
    found = intervals(benchmark, rows[:60], benchmark.scores(rows[:60]), benchmark.samples(rows[:60]))
    assert {"seen, top-1", "seen, top-1 of ceiling"} & found.keys()
    benchmark.write_judged(rows)
    assert load_image(benchmark.out / "nearest.png").width > 256


def test_lost_features_are_computed_again(benchmark: Pictograms) -> None:
    row = next(row for row in run(benchmark, Perfect(benchmark)) if row.item.data["kind"] == LIKE)
    file = benchmark.out / "features" / f"{row.item.key}.npy"
    before = np.load(file)
    for damage in (file.unlink, lambda: file.write_bytes(b"half")):
        damage()
        assert np.array_equal(benchmark._features_of(row), before) and np.array_equal(np.load(file), before)


def test_noise_scores_badly(benchmark: Pictograms) -> None:
    good, bad = (run(benchmark, Perfect(benchmark, noise=noise)) for noise in (False, True))
    right, wrong = (benchmark.scores(rows) for rows in (good, bad))
    assert wrong["copies of training pictures"] == 0
    assert wrong["nearest training picture, median distance"] > right["nearest training picture, median distance"]
    assert wrong["spread, background"] > 0.9 > right["spread, background"]
    benchmark._wholes.clear()
    assert benchmark.scores_of_all(bad)["KID, generated"] > 0.1


def test_the_distances_have_intervals_in_the_report(benchmark: Pictograms) -> None:
    rows = [row for row in run(benchmark, Perfect(benchmark)) if row.item.data["kind"] in (LIKE, VAE)]
    scores = benchmark.scores(rows) | benchmark.scores_of_all(rows)
    low, high = intervals(benchmark, rows, scores, benchmark.samples(rows))["KID, generated"]
    assert low < scores["KID, generated"] < high


def test_scores_of_ceiling_are_relative_to_the_same_style(benchmark: Pictograms) -> None:
    judge, _ = benchmark.fitted
    judge.ceilings["subject"] = {"noto": [0, 0, 0, 9], "flat": [0, 9]}
    rows = [seen("noto", 1.0), seen("noto", 0.0), seen("flat", 0.0)]
    scores = benchmark.scores(rows)
    assert scores["seen, top-1"] == pytest.approx(1 / 3)
    assert scores["seen, noto, top-1 of ceiling"] == pytest.approx(0.5 / 0.75)
    assert scores["seen, top-1 of ceiling"] == pytest.approx(1 / (0.75 + 0.75 + 0.5))


def seen(style: str, hit: float) -> Row:
    item = Item(f"seen/{style}/{hit}", "", data={"kind": "seen", "style": style})
    return Row(item, "", {"score": hit, "subject": hit})


def test_options_are_chosen_on_other_prompts(data: Path, features: RandomFeatures) -> None:
    tuned = Pictograms(data, PictogramSettings(pictures=30, subjects=30, tuning=True))
    tuned.features = features
    items = tuned.items()
    assert len(items) == 30 and {item.data["kind"] for item in items} == {LIKE}
    tuning = {item.data["id"] for item in items}
    assert (data / TUNING).is_file() and len(tuning) > 5
    whole = Pictograms(data, SETTINGS)
    whole.features = features
    assert not tuning & {item.data["id"] for item in whole.items() if item.data["kind"] in ("seen", LIKE, VAE)}


def test_reconstructions_go_through_the_vae() -> None:
    picture = Image.new("RGB", (64, 64), (10, 200, 30))
    item = Item("vae/0", "", images=(picture,))
    same, grey = (reconstructed(SimpleNamespace(codec=Codec(grey)), [item])[0] for grey in (False, True))
    assert np.abs(np.asarray(same, int) - np.asarray(picture, int)).max() <= 1
    assert np.asarray(grey).std() == 0


def test_shares_are_of_the_pictures(benchmark: Pictograms) -> None:
    rows = [row for row in benchmark.real if row["style"] in ("noto", "flat")][:8]
    found = shares(rows)
    assert found["style"] == {one: sum(row["style"] == one for row in rows) / 8 for one in {r["style"] for r in rows}}
    assert found["background"] == {"white": 1.0}


def test_a_sweep_looks_for_the_lowest_distance() -> None:
    assert Pictograms.swept.startswith("KID") and Pictograms.swept_lower_is_better


def test_pictures_are_judged_again_with_other_data_and_answers_are_not(
    benchmark: Pictograms, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("janusflow.pictograms.benchmark.EfficientNetFeatures", lambda: benchmark.features)
    fitted = benchmark.fitted
    monkeypatch.setattr("janusflow.pictograms.benchmark.open_judge", lambda *_, **__: fitted)
    own = shutil.copytree(data, tmp_path / "data")
    request = EvalRequest("pictograms", tmp_path / "run", data=own, settings={"questions": 2})
    run = EvalRun(request)
    picture, question = (
        next(item for item in run.items if run.benchmark.drawn(item) == drawn) for drawn in (True, False)
    )
    for item, output in ((picture, Image.new("RGB", (64, 64))), (question, "a fox")):
        run.keep(item, output)
        run.keep_verdict(item, {"verdict": {"score": 1.0}})
    assert [bool(EvalRun(request).judged(item)) for item in (picture, question)] == [True, True]
    shard = files_of(own)[0][0]
    parquet.write_table(parquet.read_table(shard), shard, compression="none")
    assert [bool(EvalRun(request).judged(item)) for item in (picture, question)] == [False, True]


def test_a_missing_folder_is_reported() -> None:
    with pytest.raises(ValueError, match="--data is not given; expected the folder of"):
        Pictograms(None, SETTINGS).items()
