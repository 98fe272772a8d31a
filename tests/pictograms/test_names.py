"""Names of emoji: labels, tones, genders, roles, colors, and how they read in a sentence."""

from __future__ import annotations

from pathlib import Path

import pytest

from janusflow.pictograms.names import Subject, canonical, read_names, roles, slug
from janusflow.pictograms.phrases import noun, synonyms, toned, with_article
from janusflow.pictograms.pictures import Collection


def test_emoji_have_labels_keywords_and_groups(collection: Collection) -> None:
    fox = collection.names["1f98a"]
    assert (fox.label, fox.synonyms, fox.group, fox.subgroup) == (
        "fox",
        ("fox face",),
        "animals-nature",
        "animal-mammal",
    )
    assert fox.keywords == ("animal", "face") and not (fox.toned or fox.tones or fox.role or fox.color)


def test_people_have_tones_genders_and_roles(collection: Collection) -> None:
    found = collection.names["1f469-1f3ff-200d-1f692"]
    assert (found.label, found.gender, found.role, found.tones) == (
        "woman firefighter",
        "woman",
        "firefighter",
        ("dark",),
    )
    assert found.is_person and collection.names["1f9d1-200d-1f692"].role == ""
    assert roles(collection.names) == ["elf", "firefighter"]


def test_a_direction_is_no_part_of_the_role() -> None:
    found = Subject("1", "man walking", role="walking", gender="man", right=True)
    assert noun(found) == "man walking facing right"


def test_shapes_have_colors(collection: Collection) -> None:
    found = {(one.color, one.shape) for one in collection.names.values() if one.shape}
    assert ("orange", "heart") in found and ("green", "circle") in found and ("red", "apple") not in found
    assert collection.names["1f34e"].color == "red" and not collection.names["1f34e"].shape


def test_code_points_are_written_in_one_way() -> None:
    assert canonical("2764-FE0F-200D-1F525") == "2764-200d-1f525"


def test_labels_match_file_names() -> None:
    assert slug("flag: France") == "flag-france" and slug("woman’s hat") == "womans-hat"


@pytest.mark.parametrize(
    ("label", "expected"),
    [
        ("fox", "a fox"),
        ("orange book", "an orange book"),
        ("umbrella", "an umbrella"),
        ("unicorn", "a unicorn"),
        ("grapes", "grapes"),
        ("compass", "a compass"),
        ("octopus", "an octopus"),
        ("men wrestling", "men wrestling"),
        ("bread", "bread"),
        ("mount fuji", "mount fuji"),
        ("flag: France", "the flag of France"),
        ("keycap: 1", "keycap 1"),
        ("man: red hair", "a man with red hair"),
        ("woman: beard", "a woman with a beard"),
        ("man: bald", "a bald man"),
        ("family: man, woman, boy", "a family of man, woman and boy"),
        ("SOS button", "an SOS button"),
        ("FREE button", "a FREE button"),
        ("woman’s hat", "a woman's hat"),
    ],
)
def test_labels_read_as_noun_phrases(label: str, expected: str) -> None:
    assert with_article(noun(Subject("", label))) == expected


def test_tones_stand_behind_the_phrase() -> None:
    one = Subject("", "firefighter", tones=("medium-dark",), subgroup="person-role")
    assert toned("a firefighter", one) == "a firefighter with medium-dark skin tone"
    assert toned("a man with a beard", one) == "a man with a beard and medium-dark skin tone"
    two = Subject("", "handshake", tones=("light", "dark"))
    assert toned("a handshake", two) == "a handshake with light and dark skin tones"


def test_misleading_unicode_names_are_no_synonyms(collection: Collection) -> None:
    heart = next(one for one in collection.names.values() if one.label == "red heart")
    assert synonyms(heart) == []  # Unicode calls it a heavy black heart


def test_another_file_is_refused_in_one_sentence(registry: Path) -> None:
    other = next(registry.rglob("noto-1.2.9.tgz"))
    with pytest.raises(ValueError, match="is not a package of emojibase-data"):
        read_names(other)
