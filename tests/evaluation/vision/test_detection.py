"""Mask2Former and CLIP as GenEval's judges: boxes, scores and thresholds from known outputs, and small real models."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image, ImageDraw
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from torch import Tensor
from transformers import (
    CLIPConfig,
    CLIPImageProcessorPil,
    CLIPModel,
    Mask2FormerConfig,
    Mask2FormerForUniversalSegmentation,
    Mask2FormerImageProcessorPil,
    PreTrainedTokenizerFast,
    SwinConfig,
)

from janusflow.evaluation.benchmarks.geneval import MOST, GenEval, GenEvalSettings, kept
from janusflow.evaluation.request import EvalRequest
from janusflow.evaluation.run.evaluate import evaluate
from janusflow.evaluation.vision.clip import COLORS, TEMPLATES, Clip, ColorNamer, object_crop
from janusflow.evaluation.vision.detection import Detection, Detector, objects
from tests.evaluation.benchmarks.test_geneval import RECORDS, Painter, run

NAMES = ("cat", "dog")
WORDS = ["<pad>", "<s>", "</s>", "a", "photo", "of", "object", "colored", "-", *COLORS, *NAMES]


def logits_of(*chances: Sequence[float]) -> Tensor:
    """Class logits whose softmax is given for each query: cat, dog, none."""
    return torch.tensor(chances).log()


def masks_of(*boxes: tuple[int, int, int, int] | None, sure: float = 20.0) -> Tensor:
    """Mask logits (Q, 8, 12): `sure` in each box and -`sure` outside."""
    masks = torch.full((len(boxes), 8, 12), -sure)
    for mask, box in zip(masks, boxes, strict=True):
        if box is not None:
            mask[box[1] : box[3], box[0] : box[2]] = sure
    return masks


def found_in(classes: Tensor, masks: Tensor, size: tuple[int, int] = (64, 80)) -> list[Detection]:
    """A picture of 64 x 80 pixels, padded to 64 x 96 for the model, whose masks have an eighth of that."""
    return objects(classes, masks, NAMES, padded=(64, 96), inner=(64, 80), size=size)


def test_the_box_goes_around_the_mask() -> None:
    one = found_in(logits_of((0.9, 0.05, 0.05)), masks_of((2, 1, 6, 5)))[0]
    assert one.name == "cat" and one.box == (16, 8, 48, 40)
    assert one.mask is not None and one.mask.shape == (64, 80)
    assert 0.95 * 32 * 32 < one.mask.sum() <= 32 * 32, "resizing rounds the corners"
    assert one.score == pytest.approx(0.9, abs=0.03)


def test_the_padding_is_no_part_of_the_picture() -> None:
    edge = found_in(logits_of((0.9, 0.05, 0.05)), masks_of((8, 0, 12, 8)), size=(32, 40))[0]
    assert edge.box == (32, 0, 40, 32), "the picture ends where the padding begins"
    assert found_in(logits_of((0.9, 0.05, 0.05)), masks_of((11, 0, 12, 8))) == []


def test_scores_are_class_times_mask() -> None:
    unsure = found_in(logits_of((0.8, 0.1, 0.1)), masks_of((0, 0, 12, 8), sure=0.4))[0]
    assert unsure.score == pytest.approx(0.8 * torch.sigmoid(torch.tensor(0.4)).item(), abs=1e-4)
    assert found_in(logits_of((0.5, 0.1, 0.4)), masks_of((0, 0, 12, 8), sure=0.2)) == [], "0.5 x 0.55 is below 0.3"
    assert found_in(logits_of((0.9, 0.05, 0.05)), masks_of(None)) == [], "nothing is masked"
    assert found_in(logits_of((0.04, 0.04, 0.92)), masks_of((0, 0, 12, 8))) == []


def test_a_query_may_be_of_two_classes_and_the_surest_come_first() -> None:
    found = found_in(logits_of((0.35, 0.6, 0.05), (0.9, 0.05, 0.05)), masks_of((0, 0, 6, 8), (6, 0, 10, 8)))
    assert [one.name for one in found] == ["cat", "dog", "cat"]
    assert [one.box[0] for one in found] == [48, 0, 0]


def test_the_order_is_that_of_the_whole_score() -> None:
    masks = torch.cat([masks_of((0, 0, 12, 8), sure=0.4), masks_of((0, 0, 12, 8))])
    found = found_in(logits_of((0.9, 0.05, 0.05), (0.05, 0.8, 0.15)), masks)
    assert [one.name for one in found] == ["dog", "cat"], "the cat's class is surer, but not its mask"


def test_thresholds_and_the_most_of_a_class_on_detections() -> None:
    classes = logits_of(*[(0.5 + index / 50, 0.001, 0.499 - index / 50) for index in range(24)])
    found = found_in(classes, masks_of(*[(0, 0, 12, 8)] * 24))
    assert len(found) == 24 and len(kept(found, "colors")["cat"]) == MOST
    assert len(kept(found, "counting")["cat"]) == 3, "0.92, 0.94 and 0.96 are above 0.9"


class RedFinder(torch.nn.Module):
    """Stands for the network: one query, a cat wherever the picture is red; another sees nothing."""

    config = SimpleNamespace(num_labels=2)
    device = torch.device("cpu")

    def forward(self, pixel_values: Tensor, pixel_mask: Tensor) -> Any:
        red = (pixel_values[:, 0] > 1) & (pixel_values[:, 1] < 0) & pixel_mask.bool()
        masks = torch.where(red, 20.0, -20.0)[:, None, ::4, ::4]
        classes = logits_of((0.95, 0.03, 0.02), (0.01, 0.01, 0.98))[None]
        return SimpleNamespace(class_queries_logits=classes, masks_queries_logits=masks.repeat(1, 2, 1, 1))


@pytest.mark.parametrize("size", [(120, 80), (64, 64), (90, 150)])
def test_boxes_come_back_to_the_picture_through_the_real_processor(size: tuple[int, int]) -> None:
    picture = Image.new("RGB", size, "white")
    ImageDraw.Draw(picture).rectangle((24, 10, 55, 47), fill="red")
    processor = Mask2FormerImageProcessorPil(size={"shortest_edge": 200, "longest_edge": 400}, size_divisor=32)
    found = Detector(RedFinder(), processor, NAMES)(picture)
    assert len(found) == 1 and found[0].box == pytest.approx((24, 10, 56, 48), abs=2)
    assert found[0].mask is not None and found[0].mask.shape == size[::-1]


class Palette:
    """Stands for CLIP: a text's vector has 1 for its color, a picture's has 1 for the color of its pixels' mean."""

    values = torch.tensor(
        [
            (255, 0, 0),
            (255, 165, 0),
            (255, 255, 0),
            (0, 128, 0),
            (0, 0, 255),
            (128, 0, 128),
            (255, 192, 203),
            (165, 42, 42),
            (0, 0, 0),
            (255, 255, 255),
        ]
    ).float()

    def __init__(self) -> None:
        self.asked: list[str] = []

    def texts(self, texts: Sequence[str]) -> Tensor:
        self.asked += texts
        vectors = torch.stack([torch.tensor([float(color in text) for color in COLORS]) for text in texts])
        vectors[[index for index, text in enumerate(texts) if text.endswith("object")]] *= -0.4  # one of three errs
        return vectors

    def pictures(self, pictures: Sequence[Image.Image]) -> Tensor:
        means = torch.tensor(np.stack([np.asarray(picture).mean((0, 1)) for picture in pictures])).float()
        return -torch.cdist(means, self.values) / 400


def test_crops_hide_what_is_outside_the_mask() -> None:
    picture = Image.new("RGB", (40, 30), "green")
    mask = np.zeros((30, 40), dtype=bool)
    mask[5:15, 10:20] = True
    crop = object_crop(picture, Detection("cat", 0.9, (10, 5, 30, 15), mask))
    assert crop.size == (20, 10)
    assert crop.getpixel((5, 5)) == (0, 128, 0) and crop.getpixel((15, 5)) == (0x99, 0x99, 0x99)
    assert object_crop(picture, Detection("cat", 0.9, (10, 5, 30, 15))).getpixel((15, 5)) == (0, 128, 0)


def test_colors_are_named_by_the_mean_of_three_templates() -> None:
    palette = Palette()
    namer = ColorNamer(palette)  # type: ignore[arg-type]
    picture = Image.new("RGB", (40, 20), "blue")
    picture.paste("red", (20, 0, 40, 20))
    cats = [Detection("cat", 0.9, (20, 0, 40, 20)), Detection("cat", 0.8, (0, 0, 20, 20))]
    assert namer(picture, cats) == ["red", "blue"] and namer(picture, []) == []
    assert len(palette.asked) == len(COLORS) * len(TEMPLATES) and namer(picture, cats[:1]) == ["red"]
    assert palette.asked[:3] == ["a photo of a red cat", "a photo of a red-colored cat", "a photo of a red object"]
    assert len(palette.asked) == 30, "texts are encoded once for a class"


def save_clip(folder: Path) -> None:
    """A small CLIP with random weights, as a folder."""
    torch.manual_seed(0)
    layers = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
    text = {**layers, "vocab_size": len(WORDS), "max_position_embeddings": 12, "eos_token_id": 2, "bos_token_id": 1}
    vision = {**layers, "image_size": 32, "patch_size": 8}
    CLIPModel(CLIPConfig(text_config=text, vision_config=vision, projection_dim=8)).save_pretrained(folder)
    CLIPImageProcessorPil(size={"shortest_edge": 32}, crop_size={"height": 32, "width": 32}).save_pretrained(folder)
    words = Tokenizer(models.WordLevel({word: index for index, word in enumerate(WORDS)}, unk_token="<pad>"))
    words.pre_tokenizer = pre_tokenizers.Whitespace()
    words.post_processor = processors.TemplateProcessing("<s> $0 </s>", special_tokens=[("<s>", 1), ("</s>", 2)])
    tokens = {"pad_token": "<pad>", "bos_token": "<s>", "eos_token": "</s>"}
    PreTrainedTokenizerFast(tokenizer_object=words, **tokens).save_pretrained(folder)


def save_detector(folder: Path) -> None:
    """A small Mask2Former with random weights, as a folder."""
    torch.manual_seed(0)
    swin = SwinConfig(
        image_size=64,
        embed_dim=8,
        depths=[1, 1, 1, 1],
        num_heads=[1, 1, 2, 2],
        window_size=4,
        out_features=["stage1", "stage2", "stage3", "stage4"],
    )
    config = Mask2FormerConfig(
        backbone_config=swin,
        feature_size=32,
        mask_feature_size=32,
        hidden_dim=32,
        encoder_feedforward_dim=16,
        encoder_layers=1,
        decoder_layers=2,
        num_attention_heads=2,
        dim_feedforward=16,
        num_queries=6,
        num_labels=2,
    )
    Mask2FormerForUniversalSegmentation(config).save_pretrained(folder)
    Mask2FormerImageProcessorPil(size={"shortest_edge": 64, "longest_edge": 96}).save_pretrained(folder)


@pytest.fixture(scope="module")
def judges(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folders `detector` and `clip` with small random models."""
    folder = tmp_path_factory.mktemp("judges")
    save_detector(folder / "detector")
    save_clip(folder / "clip")
    return folder


def test_small_models_run_without_a_network(judges: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("janusflow.evaluation.vision.detection.THRESHOLD", 0.0)  # random weights are sure of nothing
    (tmp_path / "evaluation_metadata.jsonl").write_text("".join(f"{line}\n" for line in map(json.dumps, RECORDS)))
    (tmp_path / "object_names.txt").write_text("cat\ndog\n")
    settings = GenEvalSettings(
        images=1, detector=str(judges / "detector"), color_model=str(judges / "clip"), device="cpu"
    )
    benchmark = GenEval(tmp_path, settings)
    benchmark.out = tmp_path / "out"
    rows = run(benchmark, Painter())
    assert [row.score for row in rows] == [0, 0] and "found 0" in rows[0].verdict["problem"]
    picture = Image.open(tmp_path / "out" / rows[0].output).convert("RGB")
    found = benchmark.detector(picture)
    assert found and {one.name for one in found} <= set(NAMES)
    assert all(one.mask is not None and one.mask.shape == (24, 32) for one in found)
    assert set(benchmark.color_namer(picture, found[:1])) <= set(COLORS)


def test_a_judge_that_is_missing_is_told_before_anything_is_drawn(judges: Path, tmp_path: Path) -> None:
    (tmp_path / "evaluation_metadata.jsonl").write_text(json.dumps(RECORDS[0]) + "\n")
    (tmp_path / "object_names.txt").write_text("cat\ndog\n")
    models = {"detector": str(judges / "detector"), "color_model": str(tmp_path / "nowhere")}
    request = EvalRequest("geneval", tmp_path / "out", data=tmp_path, settings={"images": 1, "device": "cpu", **models})
    with pytest.raises(ValueError, match="color_model '.*nowhere', which judges GenEval, cannot be opened"):
        evaluate(request, model=Painter())
    assert not list((tmp_path / "out").rglob("*.png"))
    assert evaluate(replace(request, mode="generate"), model=Painter())["done"] == 1
    right = replace(request, settings={**request.settings, "color_model": str(judges / "clip")})
    assert evaluate(right, model=Painter())["judged"] == 1


def test_clip_gives_what_transformers_gives(judges: Path) -> None:
    clip = Clip.open(str(judges / "clip"), device="cpu")
    pictures = [Image.new("RGB", (50, 40), "red"), Image.effect_noise((40, 60), 90).convert("RGB")]
    vectors, texts = clip.pictures(pictures), clip.texts(["a red cat", "a photo of a blue dog " * 9])
    assert vectors.shape == texts.shape == (2, 8)
    torch.testing.assert_close(torch.cat([vectors, texts]).norm(dim=-1), torch.ones(4))
    inputs = clip.processor(images=pictures, return_tensors="pt") | clip.tokenizer(
        ["a red cat", "a red cat"], return_tensors="pt"
    )
    with torch.no_grad():
        expected = clip.model(**inputs).logits_per_image[:, 0] / clip.model.logit_scale.exp()
    torch.testing.assert_close((vectors @ texts.T)[:, 0], expected)


def test_what_cannot_be_opened_is_named(judges: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="detector '.*nowhere' cannot be opened; expected a folder"):
        Detector.open(str(tmp_path / "nowhere"), NAMES)
    with pytest.raises(ValueError, match="CLIP model '.*nowhere' cannot be opened; expected a folder"):
        Clip.open(str(tmp_path / "nowhere"))
    with pytest.raises(ValueError, match="knows 2 classes, but object_names.txt names 3"):
        Detector.open(str(judges / "detector"), ["cat", "dog", "cow"])
