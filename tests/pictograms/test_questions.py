"""Conversations: answers that hold, and as many yes as no."""

from __future__ import annotations

from collections import Counter
from random import Random

import pytest

from janusflow.pictograms.names import ICONS, Subject
from janusflow.pictograms.phrases import noun
from janusflow.pictograms.pictures import Collection, Picture, tinted
from janusflow.pictograms.questions import Conversations


@pytest.fixture(scope="module")
def pictures(collection: Collection) -> list[Picture]:
    return [*collection.pictures(), *tinted(collection.icons(), number=4, seed=0, wanted={})]


@pytest.fixture(scope="module")
def talks(pictures: list[Picture]) -> Conversations:
    return Conversations([picture.subject for picture in pictures])


def asked(talks: Conversations, picture: Picture, background: str = "white") -> dict[str, set[str]]:
    """Answers by question, in one spelling, of many conversations."""
    found: dict[str, set[str]] = {}
    for number in range(60):
        for question, answer in talks.talk(picture, Random(number), background):
            found.setdefault(question.replace("colour", "color"), set()).add(answer)
    return found


def test_what_is_shown_and_how_is_answered(talks: Conversations, pictures: list[Picture]) -> None:
    picture = next(one for one in pictures if one.id == "flat/1f469-1f3ff-200d-1f692")
    found = asked(talks, picture, "light blue")
    assert found["What is this?"] == {"a woman firefighter"}
    assert found["Which style is this?"] == {"flat"}
    assert found["Which skin tone?"] == {"dark"}
    assert found["Is this a man or a woman?"] == {"woman"}
    assert found["What color is the background?"] == {"light blue"}
    assert "What color is it?" not in found


def test_colors_are_asked_where_they_are_seen(talks: Conversations, pictures: list[Picture]) -> None:
    by_id = {picture.id: picture for picture in pictures}
    assert asked(talks, by_id["noto/1f34e"])["What color is it?"] == {"red"}
    assert "What color is it?" not in asked(talks, by_id["high-contrast/1f34e"])
    icon = next(picture for picture in pictures if picture.tint)
    assert asked(talks, icon)["What color is it?"] == {icon.tint}


def test_yes_is_as_frequent_as_no(talks: Conversations, pictures: list[Picture]) -> None:
    rng = Random(0)
    counts = Counter(talks.there(picture, rng)[1] for picture in pictures for _ in range(10))
    assert set(counts) == {"yes", "no"} and 0.45 < counts["yes"] / counts.total() < 0.55


def test_no_is_never_said_of_what_is_there(talks: Conversations, pictures: list[Picture]) -> None:
    rng = Random(0)
    for picture in pictures:
        for _ in range(5):
            absent = talks.absent(picture.subject, rng)
            other = talks.names[absent]
            assert absent not in (noun(picture.subject), *picture.subject.synonyms, *picture.subject.keywords)
            assert not picture.subject.role or other.role != picture.subject.role
            assert (other.group == ICONS) == (picture.subject.group == ICONS)


def test_the_only_subject_is_asked_for_with_yes() -> None:
    fox = Subject("1f98a", "fox", group="animals-nature")
    assert Conversations([fox]).absent(fox, Random(0)) == ""
