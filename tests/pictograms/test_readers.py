"""Packages: which drawings they give, and what is left out and why."""

from __future__ import annotations

import io
import tarfile
from collections import Counter
from pathlib import Path

import pytest

from janusflow.pictograms.pictures import Collection, tinted
from janusflow.pictograms.readers import (
    BRAND,
    COUNTRY,
    UNSEEN,
    WEIGHTS,
    framed_clip,
    read_drawings,
)
from janusflow.pictograms.render import TINTS

CLIP = """<svg width="100.0mm" height="50mm" xmlns="http://www.w3.org/2000/svg">
<metadata><dc:title>{title}</dc:title><cc:license rdf:resource="http://web.resource.org/cc/PublicDomain"/>
<rdf:li>food</rdf:li><rdf:li>hash</rdf:li></metadata><rect width="9" height="9"/></svg>"""


def test_every_style_has_the_fox(collection: Collection) -> None:
    found = {picture.style.name for picture in collection.pictures() if picture.subject.label == "fox"}
    assert found == {"noto", "noto-v1", "flat", "high-contrast", "3d"}


def test_ids_are_unique(collection: Collection) -> None:
    pictures = [*collection.pictures(), *tinted(collection.icons(), number=6, seed=0, wanted={})]
    assert len({picture.id for picture in pictures}) == len(pictures) > 150


def test_countries_flags_come_from_google_only(collection: Collection) -> None:
    sources = [picture.source for picture in collection.pictures() if picture.subject.is_country]
    assert sources == ["noto-flags"] * 2 and collection.skipped["3d"][COUNTRY] == 2
    assert any(picture.id == "3d/1f3c1" for picture in collection.pictures())  # the chequered flag is Fluent's own


def test_colors_that_black_drawings_do_not_show_are_left_out(collection: Collection) -> None:
    assert not [one for one in collection.drawings["high-contrast"] if one.subject.shape]
    assert collection.skipped["high-contrast"][UNSEEN]


def test_icons_have_six_weights_and_no_brands(collection: Collection) -> None:
    icons = collection.icons()
    assert all(set(weights) == set(WEIGHTS) for weights in icons.values()) and "ph-acorn" in icons
    assert collection.skipped["phosphor"][BRAND] == 6 and not [name for name in icons if name.endswith("logo")]


def test_a_held_out_tint_is_there_with_its_parts(collection: Collection) -> None:
    wanted = ("bold", "red")
    found = [
        (picture.weight, picture.tint)
        for picture in tinted(collection.icons(), number=4, seed=0, wanted={"ph-acorn": wanted})
        if picture.subject.id == "ph-acorn"
    ]
    assert len(found) == len(set(found)) == 5 and wanted in found
    assert {weight for weight, tint in found if tint == "red"} - {"bold"}
    assert {tint for weight, tint in found if weight == "bold"} - {"red"}
    assert {tint for _, tint in found} <= set(TINTS)


def test_a_root_without_a_frame_gets_one() -> None:
    assert 'viewBox="0 0 354.331 177.165"' in framed_clip(CLIP) and 'width="100' not in framed_clip(CLIP)
    assert 'viewBox="1 2 3 4"' in framed_clip('<svg viewBox="1 2 3 4" height="9"/>')
    assert framed_clip('<svg width="100%"/>') == framed_clip("nothing") == ""


def test_clip_art_is_read_from_a_debian_package(tmp_path: Path) -> None:
    files = {"food/apple": "an apple 01", "food/untitled": "", "computer/mouse": "mouse"}
    files |= {f"food/part{number}": "lemon theme" for number in range(13)}
    files["food/private"] = "private pear"
    inner = io.BytesIO()
    with tarfile.open(fileobj=inner, mode="w:xz") as tar:
        for name, title in files.items():
            text = CLIP.format(title=title)
            content = (text.replace("PublicDomain", "by-sa") if "private" in name else text).encode()
            entry = tarfile.TarInfo(f"./usr/share/openclipart/svg/{name}.svg")
            entry.size = len(content)
            tar.addfile(entry, io.BytesIO(content))
    data = inner.getvalue()
    members = {"debian-binary": b"2.0", "data.tar.xz": data}
    parts = [
        f"{name:<16}{0:<12}{0:<6}{0:<6}{100644:<8}{len(content):<10}`\n".encode() + content + b"\n" * (len(content) % 2)
        for name, content in members.items()
    ]
    file = tmp_path / "clips.deb"
    file.write_bytes(b"!<arch>\n" + b"".join(parts))
    skipped: Counter[str] = Counter()
    (only,) = read_drawings("clipart", file, {}, skipped)
    assert (only.subject.label, only.subject.keywords, only.subject.id) == ("apple", ("food",), "oc-food-apple")
    assert sum(skipped.values()) == len(files) - 1 and skipped["does not state the public domain"] == 1


@pytest.mark.parametrize("reader", ["iconify", "hexadecimal", "phosphor", "clipart"])
def test_a_damaged_package_is_refused_in_one_sentence(tmp_path: Path, reader: str) -> None:
    file = tmp_path / "package"
    file.write_bytes(b"not an archive at all")
    with pytest.raises(ValueError, match=f"cannot be read as {reader}"):
        read_drawings(reader, file, {}, Counter())
