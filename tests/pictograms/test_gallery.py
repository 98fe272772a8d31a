"""The gallery generates the prompts of the captions, and frames exactly what the data set holds out."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from typer.testing import CliRunner

from janusflow.pictograms.captions import prompt
from janusflow.pictograms.cli import app
from janusflow.pictograms.gallery import EMOJI_STYLES, SUBJECTS, gallery_prompts, write_gallery
from janusflow.pictograms.held_out import STYLE, read_held_out
from janusflow.pictograms.pictures import Collection
from janusflow.pictograms.table import CELL, HEAD, LABEL

RED = (255, 0, 0)


def test_the_prompts_are_those_of_the_captions_and_half_of_the_subjects_are_held_out(collection: Collection) -> None:
    prompts, held_out = gallery_prompts(), read_held_out()
    known = [picture for picture in collection.pictures() if (picture.subject.id, picture.style.name) in prompts]
    assert known
    for picture in known:
        words, held = prompts[picture.subject.id, picture.style.name]
        assert words == prompt(picture) and held == (held_out.kind(picture) == STYLE)
    assert len({subject for (subject, _), (_, held) in prompts.items() if held}) == len(SUBJECTS) / 2


def test_the_command_writes_a_table_with_a_frame_around_each_held_out_cell(tmp_path: Path) -> None:
    file = tmp_path / "made" / "table.png"
    done = CliRunner().invoke(app, ["gallery", "--out", str(file), "--steps", "1", "--device", "cpu"])
    assert done.exit_code == 0, done.output
    with Image.open(file) as table:
        framed = {
            (subject, style)
            for line, subject in enumerate(SUBJECTS)
            for column, style in enumerate(EMOJI_STYLES)
            if table.getpixel((LABEL + column * CELL + 1, HEAD + line * CELL + 1)) == RED
        }
        assert table.info["guidance_scale"] == "4.0"
    assert framed == {key for key, (_, held) in gallery_prompts().items() if held}


def test_each_picture_has_noise_of_its_own(tmp_path: Path) -> None:
    class Model:
        def generate(self, prompts: list[str], *, seed: list[int], **settings: Any) -> list[Image.Image]:
            self.seeds = seed
            return [Image.new("RGB", (8, 8)) for _ in prompts]

    model: Any = Model()
    write_gallery(model, tmp_path / "table.png", seed=7)
    with pytest.raises(ValueError, match="is a folder; expected the name of a PNG file"):
        write_gallery(model, tmp_path)
    assert model.seeds == [*range(7, 7 + len(SUBJECTS) * len(EMOJI_STYLES))]
