"""Contact sheets and PNG files."""

from __future__ import annotations

from pathlib import Path

import pytest
from PIL import Image

from janusflow.sheet import contact_sheet, make_folder, save_png


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
