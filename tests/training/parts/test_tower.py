"""The tower's losses: words of regions, and outlines."""

from __future__ import annotations

from pathlib import Path

import torch
from PIL import Image

from janusflow.config import tiny
from janusflow.data.records import Record
from janusflow.data.regions import Region
from janusflow.data.samples import SampleConfig
from janusflow.training.parts.data import PICTURES, Pictured, PictureMaker
from janusflow.training.parts.pretrain import make_processor
from janusflow.training.parts.tower import Regions, TowerLearner, outlines, padded, regions_of, word_targets
from tests.training.parts.test_parts import small

WHOLE = (0.0, 0.0, 1.0, 1.0)


def pictured(*regions: tuple[list[int], tuple[float, float, float, float]]) -> Pictured:
    return Pictured(None, regions=regions)  # type: ignore[arg-type]


def test_words_that_every_text_has_are_not_predicted() -> None:
    ids = torch.tensor([[1, 2, 0], [1, 3, 3], [1, 2, 4]])
    counted = torch.tensor([[True, True, False], [True, True, True], [True, True, True]])
    found = word_targets(ids, counted, 5)
    torch.testing.assert_close(found.sum(dim=1), torch.ones(3))
    assert not found[:, :2].any()  # 0 pads, and 1 is in every text
    assert found[0].tolist() == [0, 0, 1, 0, 0] and found[1].tolist() == [0, 0, 0, 1, 0]
    assert found[2, 4] > found[2, 2] > 0  # 4 is rarer


def test_outlines_are_pixels_unlike_the_border() -> None:
    pixels = torch.full((1, 3, 8, 8), 0.5)
    pixels[:, 1, 4:6, 4:7] = -0.5
    pixels[:, :, 0, 2] = -1  # a spot on the border does not change the background
    found = outlines(pixels, 2)
    assert found.shape == (1, 4, 16)
    assert found.sum(dim=2).tolist() == [[1, 0, 0, 6]]


def test_a_patch_belongs_to_the_region_in_whose_box_it_is_most_central() -> None:
    overlapping = pictured(([5], (0, 0, 0.75, 0.75)), ([6, 7], (0.25, 0.25, 1, 1)))
    found = regions_of([pictured(([4], WHOLE)), overlapping], 4, 3, 0)
    assert found.ids.tolist() == [[4, 0, 0], [5, 0, 0], [6, 7, 0]] and found.counted.sum() == 4
    assert found.of_patch[0].tolist() == [0] * 16
    assert found.of_patch[1].view(4, 4).tolist() == [[1, 1, 1, -1], [1, 1, 1, 2], [1, 1, 2, 2], [-1, 2, 2, 2]]


def test_the_words_of_a_region_are_asked_of_its_foreground_alone() -> None:
    learner = object.__new__(TowerLearner)
    torch.nn.Module.__init__(learner)
    learner.words = torch.nn.Linear(8, 8, bias=False)
    with torch.no_grad():
        learner.words.weight.copy_(20 * torch.eye(8))
    patches = torch.eye(8)[torch.tensor([[5, 5, 1, 1], [6, 2, 2, 2]])]  # what each patch is sure to show
    foreground = torch.tensor([[1.0, 0.5, 0.0, 0.0], [0.5, 0.0, 0.0, 0.0]])
    ids, counted = padded([[5], [6], [7]], 2, 0)
    regions = Regions(ids, counted, torch.tensor([[0, 0, 0, 2], [1, 1, -1, -1]]))
    right = learner.word_loss(patches, foreground, regions)
    assert right < 1e-6  # nothing is asked of patches without foreground, nor of a region of which nothing is seen
    wrong = learner.word_loss(patches, foreground + torch.tensor([0, 0, 1.5, 0]), regions)  # half of it says 1
    torch.testing.assert_close(wrong, torch.tensor(20 * 0.5 / 2), atol=1e-3, rtol=0)


def test_regions_follow_the_crop_and_a_picture_without_them_is_one_region(tmp_path: Path) -> None:
    processor = make_processor(small(tmp_path), tmp_path / "processor")
    maker = PictureMaker(processor, tiny(300), SampleConfig())
    wide = Image.new("RGB", (128, 64))
    regions = (Region("a red star", 0.25, 0, 0.5, 1), Region("a cross", 0, 0, 0.2, 1))  # the second is cropped away
    with_regions = maker.make(PICTURES, Record("a", (wide,), "a scene", regions=regions), None, crop="random")  # type: ignore[arg-type]
    without = maker.make(PICTURES, Record("b", (wide,), "a scene"), None)  # type: ignore[arg-type]
    assert isinstance(with_regions, Pictured) and isinstance(without, Pictured)
    encode = processor.tokenizer.encode
    assert with_regions.regions == ((encode("a red star", add_special_tokens=False), (0, 0, 0.5, 1)),)
    assert without.regions == ((encode("a scene", add_special_tokens=False), WHOLE),)
