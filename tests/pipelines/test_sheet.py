"""Contact sheets and PNG files."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from PIL import Image

from janusflow.pipelines.sheet import contact_sheet, make_folder, save_new_png, save_png


def test_a_sheet_shows_every_picture_enlarged_in_order() -> None:
    colors = [(200, 0, 0), (0, 200, 0), (0, 0, 200)]
    sheet = contact_sheet([Image.new("RGB", (64, 64), c) for c in colors], ["a", "b " * 40, "c"], columns=2)
    found = [sheet.getpixel(at) for at in ((60, 60), (200, 60))]
    assert found == colors[:2]
    assert sheet.width == 2 * (128 + 8) + 8
    assert (0, 0, 200) in {color for _, color in sheet.getcolors(10**6)}


def test_a_file_that_cannot_be_finished_leaves_nothing(tmp_path: Path) -> None:
    class Broken(Image.Image):
        def save(self, *args: object, **kwargs: object) -> None:
            raise OSError("disk full")

    with pytest.raises(OSError, match="disk full"):
        save_png(Broken(), tmp_path / "a.png", {})
    assert not list(tmp_path.iterdir())


def test_folders_are_made_or_refused(tmp_path: Path) -> None:
    assert make_folder(tmp_path / "a" / "b").is_dir()
    (tmp_path / "file").touch()
    with pytest.raises(ValueError, match="cannot be written"):
        make_folder(tmp_path / "file")


@pytest.mark.parametrize("links", [True, False])
def test_pictures_of_one_name_never_replace_each_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, links: bool
) -> None:
    def refuse(self: Path, target: Path) -> None:
        raise OSError("links are not supported")

    if not links:
        monkeypatch.setattr(Path, "hardlink_to", refuse)
    pictures = [Image.new("RGB", (4, 4), (shade, 0, 0)) for shade in range(12)]
    with ThreadPoolExecutor(4) as pool:
        files = list(pool.map(lambda picture: save_new_png(picture, tmp_path / "a.png", {}), pictures))
    assert {file.name for file in files} == {"a.png", *(f"a-{number}.png" for number in range(2, 13))}
    for file, picture in zip(files, pictures, strict=True):
        with Image.open(file) as found:
            assert found.getpixel((0, 0)) == picture.getpixel((0, 0))
    assert len(list(tmp_path.iterdir())) == 12
