"""Captions: several wordings, each with all that a picture does not share with others."""

from __future__ import annotations

from random import Random

from janusflow.pictograms.captions import PLAIN, captions, prompt
from janusflow.pictograms.pictures import Collection, Picture, tinted


def find(collection: Collection, name: str) -> Picture:
    return next(picture for picture in collection.pictures() if picture.id == name)


def test_a_picture_has_several_wordings(collection: Collection) -> None:
    found = captions(find(collection, "3d/1f98a"), Random(0))
    assert found[0] == prompt(find(collection, "3d/1f98a")) == "a fox in 3D style"
    for wording in ("a fox", "fox, 3D style", "an emoji of a fox in 3D style", "a 3D emoji of a fox", "a fox face"):
        assert wording in found
    assert any(wording.startswith("fox, ") and "animal" in wording for wording in found)
    assert len(set(found)) == len(found)


def test_a_background_other_than_white_is_always_named(collection: Collection) -> None:
    for picture in collection.pictures():
        assert all("light blue background" in text for text in captions(picture, Random(0), "light blue"))
        assert not any("background" in text for text in captions(picture, Random(0), PLAIN))


def test_skin_tones_are_always_named(collection: Collection) -> None:
    picture = find(collection, "noto/1f469-1f3ff-200d-1f692")
    assert all("dark skin" in text for text in captions(picture, Random(0)))
    assert prompt(picture) == "a woman firefighter with dark skin tone in Noto style"


def test_icons_are_named_with_their_color(collection: Collection) -> None:
    icons = tinted(collection.icons(), number=2, seed=0, wanted={"ph-acorn": ("bold", "green")})
    picture = next(one for one in icons if one.id == "phosphor/ph-acorn/bold/green")
    found = captions(picture, Random(0), "light pink")
    assert found[0] == "a green acorn icon in Phosphor bold style on a light pink background"
    assert all("green" in text and "acorn" in text and "icon" in text for text in found)


def test_nothing_is_unreadable(collection: Collection) -> None:
    for picture in collection.pictures():
        for text in captions(picture, Random(1)):
            assert "  " not in text and " ," not in text and text == text.strip() and "skin tone" not in text[:9]
