"""The judge: ridge classifiers that never see what they are tested on, their cache, and what pixels and answers say."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageColor, ImageDraw

from janusflow.pictograms import features as features_module
from janusflow.pictograms import judge as judge_module
from janusflow.pictograms.answers import judged_name, judged_style
from janusflow.pictograms.features import EfficientNetFeatures, weights_file
from janusflow.pictograms.judge import CACHE, Judge, Look, Ridge, open_judge
from janusflow.pictograms.nearest import Training
from janusflow.pictograms.reading import histogram, nearest_color, palette, read
from janusflow.pictograms.render import BACKGROUNDS, TINTS
from janusflow.pictograms.targets import FOLDS, chosen, chosen_subjects, read_pictures, targets
from janusflow.processing.images import load_image
from tests.pictograms.conftest import RandomFeatures

RNG = np.random.default_rng(0)


def drawn(color: str, box: tuple[int, int, int, int], background: str = "white") -> Image.Image:
    picture = Image.new("RGB", (64, 64), BACKGROUNDS[background])
    ImageDraw.Draw(picture).rectangle(box, fill=color)
    return picture


@pytest.fixture(scope="module")
def real(data: Path) -> list[dict[str, Any]]:
    return read_pictures(data)


# --- classifiers ----------------------------------------------------------------------------------------------------


def test_ridge_tells_apart_what_is_apart() -> None:
    labels = np.arange(60) % 3
    centers = RNG.random((3, 20)) * 9
    inputs = centers[labels] + RNG.random((60, 20))
    ridge = Ridge.fit(inputs, labels, 3)
    assert (ridge(centers[labels] + RNG.random((60, 20))).argmax(1) == labels).all()


def test_ridge_is_the_least_squares_solution() -> None:
    inputs, labels = RNG.random((30, 5)), np.arange(30) % 2
    ridge = Ridge.fit(inputs, labels, 2, penalty=0.5)
    rows = np.sqrt(inputs) - np.sqrt(inputs).mean(0)
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    assert Ridge.fit(inputs, np.arange(30) % 3 // 2, 2).share == pytest.approx([2 / 3, 1 / 3])
    wanted = np.eye(2)[labels] - 0.5
    primal = np.linalg.solve(rows.T @ rows + 0.5 * np.eye(5), rows.T @ wanted)
    assert ridge.weight == pytest.approx(primal, abs=1e-5)


def test_no_classifier_is_fitted_on_the_part_that_it_judges(
    data: Path, real: list[dict[str, Any]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sizes: list[int] = []
    fit = Ridge.fit.__func__  # type: ignore[attr-defined]

    def spy(cls: type[Ridge], inputs: np.ndarray, labels: np.ndarray, count: int) -> Ridge:
        sizes.append(len(inputs))
        return fit(cls, inputs, labels, count)

    monkeypatch.setattr(Ridge, "fit", classmethod(spy))
    asked = targets(real, chosen_subjects(real, 30, 0))
    judge = judge_module._fit(asked, RandomFeatures(), real, 0)
    wanted = []
    for name, target in asked.items():
        parts = [target.fold(real[number]) for number in chosen(target, real, 0)]
        wanted += [len(parts) - parts.count(part) for part in sorted(judge.ceilings.get(name, {}))]
    assert sizes == wanted and len(sizes) > 10


def test_pictures_that_resemble_no_others_are_not_named(real: list[dict[str, Any]]) -> None:
    """Were the tested pictures among the fitted ones, a vector of its own would give each away."""
    names = iter(range(10_000))

    def own(pictures: Sequence[Image.Image]) -> np.ndarray:
        return np.stack([np.eye(2000)[next(names)] for _ in pictures])

    asked = targets(real, chosen_subjects(real, 30, 0))
    judge = judge_module._fit({"subject": asked["subject"]}, own, real, 0)
    hits = judge.ceiling("subject")
    assert len(hits) > 50 and sum(hits) / len(hits) < 0.2


def test_names_are_judged_by_other_styles_and_the_rest_by_other_subjects(real: list[dict[str, Any]]) -> None:
    asked = targets(real, chosen_subjects(real, 30, 0))
    row = next(row for row in real if row["style"] == "noto" and row["group"] == "animals-nature")
    assert asked["subject"].fold(row) == asked["person"].fold(row) == "noto"
    assert asked["style"].fold(row) in {f"fold {n}" for n in range(FOLDS)}
    assert asked["style"].fold(row) == asked["style"].fold({**row, "style": "flat"})


def test_tones_persons_roles_shapes_and_weights_are_asked_only_where_there_are_any(real: list[dict[str, Any]]) -> None:
    asked = targets(real, chosen_subjects(real, 30, 0))
    for row in real:
        assert not asked["weight"].label(row) or row["style"] == "phosphor"
        assert not asked["tone"].label(row) or len(set(row["tones"])) == 1
        assert asked["color"].label(row) == (row["color"] if row["shape"] else "")
        assert not (asked["subject"].label(row) and row["tones"])


def test_the_probability_is_the_labels_share_of_the_estimates_above_zero(real: list[dict[str, Any]]) -> None:
    target = targets(real, chosen_subjects(real, 30, 0))["subject"]
    row = next(row for row in real if target.label(row))
    labels = [target.label(row), "other", "third", "fourth"]
    # x is the first feature's root, so the estimates are the shares + (0.75, 0.25, -0.75, 0); below 0 is left out
    weight = np.array([[0.75, 0.25, -0.75, 0.0], [0.0] * 4], np.float32)
    ridge = Ridge(np.zeros(2, np.float32), weight, np.array([0.25, 0.15, 0.2, 0.4], np.float32))
    judge = Judge({"subject": labels}, {("subject", target.fold(row)): ridge}, {}, np.zeros((0, 2)))
    look = Look(np.array([4.0, 0.0], np.float32), np.zeros(216), np.zeros(232))
    assert judge.probability(target, row, look) == pytest.approx(1.0 / 1.8)
    assert judge.ranked(target, row, look, 1) == [target.label(row)]


def test_real_pictures_are_reduced_to_the_side_of_a_smaller_model(
    data: Path, real: list[dict[str, Any]], features: RandomFeatures, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[tuple[int, int]] = []
    monkeypatch.setattr(judge_module, "histogram", lambda image: seen.append(image.size) or histogram(image))
    for side, size in ((16, (16, 16)), (None, (64, 64))):
        seen.clear()
        (data / (CACHE if side is None else f"{side}-{CACHE}")).unlink(missing_ok=True)
        open_judge(data, features, real, subjects=30, seed=0, side=side)
        assert set(seen) == {size}
    looked = features.looked
    open_judge(data, features, real, subjects=30, seed=0, side=16)
    open_judge(data, features, real, subjects=30, seed=0)
    assert features.looked == looked  # each side has a cache of its own


def test_a_cached_judge_looks_at_nothing_again(
    data: Path, real: list[dict[str, Any]], features: RandomFeatures
) -> None:
    (data / CACHE).unlink(missing_ok=True)
    judge, asked = open_judge(data, features, real, subjects=30, seed=0)
    looked = features.looked
    again, _ = open_judge(data, features, real, subjects=30, seed=0)
    assert looked > 0 and features.looked == looked
    look = Look(
        RNG.random(96).astype(np.float32), RNG.random(216).astype(np.float32), RNG.random(232).astype(np.float32)
    )
    rows = [row for row in real if judge.knows(asked["subject"], row)]
    assert rows and all(
        judge.ranked(asked["subject"], row, look) == again.ranked(asked["subject"], row, look) for row in rows
    )
    assert again.ceilings == judge.ceilings and again.names == judge.names
    assert (again.reference == judge.reference).all()


@pytest.mark.parametrize("change", ["seed", "shard", "damage"])
def test_a_cache_of_other_inputs_is_not_used(
    change: str, data: Path, real: list[dict[str, Any]], features: RandomFeatures, tmp_path: Path
) -> None:
    for file in data.iterdir():
        if file.is_file() and file.name != CACHE:
            (tmp_path / file.name).write_bytes(file.read_bytes())
    open_judge(tmp_path, features, real, subjects=30, seed=0)
    looked = features.looked
    if change == "damage":
        (tmp_path / CACHE).write_bytes((tmp_path / CACHE).read_bytes()[:500])
    if change == "shard":
        next(tmp_path.glob("shard-*.parquet")).unlink()
    open_judge(tmp_path, features, real, subjects=30, seed=change == "seed")
    assert features.looked > looked


def test_a_ceiling_is_over_the_tested_places() -> None:
    judge = Judge({}, {}, {"subject": {"noto": [0, 4, 9], "flat": [0]}}, np.empty((0, 0)))
    assert judge.ceiling("subject") == [1, 0, 0, 1] and judge.ceiling("subject", ["noto"], 5) == [1, 1, 0]


def test_subjects_to_name_have_every_style_and_no_tone(real: list[dict[str, Any]]) -> None:
    subjects = chosen_subjects(real, 12, 0)
    assert len(subjects) == 12 == len(chosen_subjects(real, 12, 1))
    styles = {one: {row["style"] for row in real if row["subject"] == one} for one in subjects}
    assert len({len(found) for found in styles.values()}) == 1
    assert not any(row["tones"] for row in real if row["subject"] in subjects)


def test_a_folder_without_pictograms_is_reported(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="pictograms build --out"):
        read_pictures(tmp_path)


# --- the network ----------------------------------------------------------------------------------------------------


def test_missing_packages_are_reported_with_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(features_module, "find_spec", lambda name: None)
    with pytest.raises(ValueError, match=r"janusflow\[eval\]"):
        weights_file()
    monkeypatch.setitem(__import__("sys").modules, "efficientnet_lite_pytorch", None)
    with pytest.raises(ValueError, match=r"janusflow\[eval\]"):
        EfficientNetFeatures()


def test_the_network_sees_pixels_about_between_minus_one_and_one() -> None:
    values = features_module.pixels([drawn("black", (0, 0, 63, 31))])
    assert values.shape == (1, 3, 224, 224)
    assert values.min() == pytest.approx(-127 / 128) and values.max() == pytest.approx(1)


# --- what pixels say ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", BACKGROUNDS)
def test_backgrounds_are_read(name: str) -> None:
    assert read(drawn("red", (8, 8, 56, 56), name)).background == name


def test_a_color_between_backgrounds_has_no_name() -> None:
    assert read(Image.new("RGB", (64, 64), (90, 120, 200))).background == "other"


@pytest.mark.parametrize(
    ("box", "place", "size"),
    [
        ((4, 4, 59, 59), "center", "large"),
        ((16, 16, 47, 47), "center", "small"),
        ((0, 16, 31, 47), "left", "small"),
        ((32, 40, 63, 63), "bottom right", "small"),
    ],
)
def test_places_and_sizes_are_read(box: tuple[int, int, int, int], place: str, size: str) -> None:
    reading = read(drawn("#d62828", box))
    assert (reading.color, reading.place, reading.size) == ("red", place, size)


def test_tints_are_read_through_thin_lines() -> None:
    palette = {name: ImageColor.getrgb(value)[:3] for name, value in TINTS.items()}
    for name, value in TINTS.items():
        picture = Image.new("RGB", (256, 256), "white")
        ImageDraw.Draw(picture).ellipse((40, 40, 216, 216), outline=value, width=5)
        assert nearest_color(picture.resize((64, 64), Image.Resampling.LANCZOS), palette) == name


def test_a_histogram_is_of_what_is_drawn() -> None:
    found = histogram(drawn("black", (10, 10, 20, 20)))
    assert found[0] == pytest.approx(1) and found.sum() == pytest.approx(1) and len(found) == 216


def test_a_palette_is_of_all_pixels_and_hardly_changes_with_the_noise_of_a_decoder() -> None:
    picture = drawn("black", (0, 0, 63, 31))
    found = palette(picture)
    assert found[0] == pytest.approx(0.5) == found[-1] and len(found) == 216
    noise = np.random.default_rng(0).integers(-2, 3, (64, 64, 3))
    noisy = Image.fromarray((np.asarray(picture, np.int16) + noise).clip(0, 255).astype(np.uint8))
    assert np.abs(palette(noisy) - found).sum() < 0.1


# --- what is nearest, and answers -----------------------------------------------------------------------------------


def test_a_training_picture_is_its_own_nearest_and_a_held_out_one_is_never_found(real: list[dict[str, Any]]) -> None:
    training = Training(real)
    row = training.rows[5]
    first = training.nearest(load_image(row["image"]["bytes"]))[0]
    assert first.distance < 1e-3
    held = {row["id"] for row in real if row["held_out"]}
    assert held and not held & {row["id"] for row in training.rows}


def test_a_distance_is_the_root_mean_square(real: list[dict[str, Any]]) -> None:
    training = Training([row for row in real if not row["held_out"]][:1])
    training.vectors = np.zeros((1, 768), np.float32)
    training.squares = np.zeros(1, np.float32)
    assert training.nearest(Image.new("RGB", (64, 64), (51, 51, 51)))[0].distance == pytest.approx(0.2)


@pytest.mark.parametrize(
    ("answer", "exact", "known", "loose"),
    [
        ("A fox.", 1, 1, 1),
        ("fox face", 0, 1, 1),
        ("an animal", 0, 0, 1),
        ("a wolf", 0, 0, 0),
        ("a fox with dark skin tone", 1, 1, 1),
        ("a fox with medium-light and dark skin tones", 1, 1, 1),
        ("a fox with a red tail and dark skin tone", 0, 0, 0),
        ("adult, rocket", 0, 0, 0),
        ("", 0, 0, 0),
    ],
)
def test_names_are_read_with_synonyms(answer: str, exact: float, known: float, loose: float) -> None:
    row = {"label": "fox", "synonyms": ["fox face", "adult, rocket"], "keywords": ["animal", "face"]}
    verdict = judged_name(answer, row)
    assert (verdict["exact"], verdict["exact or synonym"], verdict["exact, synonym or keyword"]) == (
        exact,
        known,
        loose,
    )
    assert verdict["score"] == known


def test_styles_are_read_as_captions_have_them() -> None:
    assert judged_style("classic Noto style.", {"style": "noto-v1"})["score"] == 1
    assert judged_style("Noto", {"style": "noto-v1"})["score"] == 0
