"""Held-out combinations: their parts are seen, the whole never is."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest

from janusflow.pictograms.held_out import COLOR, COUNTS, GENDER, STYLE, TINT, TONE, HeldOut, Pair, choose, read_held_out
from janusflow.pictograms.pictures import Collection, Picture, tinted

FEW = {STYLE: 5, TONE: 3, COLOR: 1, GENDER: 1, TINT: 2}


@pytest.fixture(scope="module")
def chosen(collection: Collection) -> HeldOut:
    return choose(collection, 1, FEW)


def all_pictures(collection: Collection, held_out: HeldOut) -> list[Picture]:
    return [*collection.pictures(), *tinted(collection.icons(), number=4, seed=0, wanted=held_out.tints())]


def test_the_packages_list_has_the_documented_numbers() -> None:
    held_out = read_held_out()
    assert {kind: len(set(pairs)) for kind, pairs in held_out.pairs.items()} == COUNTS
    assert COUNTS == {STYLE: 250, TONE: 100, COLOR: 6, GENDER: 10, TINT: 150}
    people = {f"{gender} {pair.subject}" for pair in held_out.pairs[GENDER] for gender in ("man", "woman")}
    assert len(people) == 20 and not people & {pair.subject for pair in held_out.pairs[TONE]}
    assert {pair.value for pair in held_out.pairs[STYLE]} == {"noto", "noto-v1", "fluent"}


def test_the_choice_depends_on_the_seed_only(collection: Collection, chosen: HeldOut) -> None:
    assert choose(collection, 1, FEW) == chosen != choose(collection, 2, FEW)


def test_a_list_is_read_as_it_was_written(chosen: HeldOut, tmp_path: Path) -> None:
    file = tmp_path / "held_out.json"
    file.write_text(chosen.as_json())
    assert read_held_out(file) == chosen
    file.write_text('{"seed": 0}')
    with pytest.raises(ValueError, match="is damaged: pairs"):
        read_held_out(file)


def test_every_part_is_seen_in_other_combinations(collection: Collection, chosen: HeldOut) -> None:
    pictures = all_pictures(collection, chosen)
    train = [picture for picture in pictures if not chosen.kind(picture)]
    counts = Counter(chosen.kind(picture) for picture in pictures)
    assert all(counts[kind] for kind in (STYLE, COLOR, GENDER, TINT))  # of tones the small packages have few
    for pair in chosen.pairs[STYLE]:
        families = {picture.style.family for picture in train if picture.subject.id == pair.subject}
        assert families and pair.value not in families
    for pair in chosen.pairs[COLOR]:
        colors = {picture.subject.color for picture in train if picture.subject.shape == pair.subject}
        shapes = {picture.subject.shape for picture in train if picture.subject.color == pair.value}
        assert colors and shapes and pair.value not in colors
    for pair in chosen.pairs[GENDER]:
        genders = {picture.subject.gender for picture in train if picture.subject.role == pair.subject}
        assert len(genders) == 1 and pair.value not in genders
    for pair in chosen.pairs[TONE]:
        found = [picture for picture in train if picture.subject.label == pair.subject]
        assert found and not any(pair.value in picture.subject.tones for picture in found)
    for icon, (weight, tint) in chosen.tints().items():
        seen = {(one.weight, one.tint) for one in train if one.subject.id == icon}
        assert (weight, tint) not in seen
        assert weight in {one for one, _ in seen} and tint in {one for _, one in seen}


def only(kind: str, subject: str, value: str) -> HeldOut:
    """A list with one combination."""
    return HeldOut(0, {name: [] for name in FEW} | {kind: [Pair(subject, value, "")]})


def test_the_fluent_styles_are_one_family(collection: Collection) -> None:
    fox = only(STYLE, "1f98a", "fluent")
    kinds = {picture.style.name: fox.kind(picture) for picture in collection.pictures() if "1f98a" in picture.id}
    assert {name for name, kind in kinds.items() if kind} == {"flat", "high-contrast", "3d"}


def test_a_tone_is_held_out_of_one_person_in_every_style(collection: Collection) -> None:
    dark = only(TONE, "firefighter", "dark")
    found = {picture.id for picture in collection.pictures() if dark.kind(picture)}
    assert found == {f"{style}/1f9d1-1f3ff-200d-1f692" for style in ("noto", "flat")}
