"""Masks of any kind mean what diffusers takes them for, and inpainting keeps what they keep."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from janusflow import JanusFlow
from janusflow.engine.inpainting import fit_mask, fit_picture, latent_mask
from janusflow.processing.images import load_mask, load_masks

PROMPT = "a red circle"
FAST: dict[str, Any] = {"num_inference_steps": 2, "seed": 0, "progress": False}
RIGHT = np.zeros((64, 64), dtype=bool)  # a mask of the right half less a column, which lies across cells of 8 pixels
RIGHT[:, 33:] = True


def with_alpha(mode: str, color: tuple[int, ...] | int, opaque: np.ndarray = RIGHT) -> Image.Image:
    """One color, opaque where RIGHT is, transparent elsewhere."""
    image = Image.new(mode, (64, 64), color)
    image.putalpha(Image.fromarray(opaque.astype(np.uint8) * 255))
    return image


def masks() -> dict[str, Any]:
    """RIGHT in every form that users have it in."""
    uint8 = RIGHT.astype(np.uint8)
    palette = Image.fromarray(uint8).convert("P")
    palette.putpalette([0, 0, 0, 255, 255, 255])
    bright = {"RGBA": (255, 255, 255), "LA": 255}
    return {
        "L": Image.fromarray(uint8 * 255),
        "L of 0 and 1": Image.fromarray(uint8),
        "1": Image.fromarray(RIGHT),
        "RGB": Image.fromarray(uint8 * 255).convert("RGB"),
        "P": palette,
        "I;16": Image.fromarray(uint8.astype(np.uint16) * 65535),
        "I": Image.fromarray(uint8.astype(np.int32) * 255),
        "F": Image.fromarray(uint8.astype(np.float32)),
        **{mode: with_alpha(mode.replace("A", ""), color) for mode, color in bright.items()},
        "bright and dark, all opaque": Image.fromarray(uint8 * 255).convert("RGBA"),
        "bool array": RIGHT,
        "uint8 array of 0 and 1": uint8,
        "uint8 array of 0 and 255": uint8 * 255,
        "int64 array of 0 and 1": uint8.astype(np.int64),
        "float array": RIGHT.astype(np.float32),
        "array (H, W, 1)": RIGHT[:, :, None],
        "array (H, W, 4)": np.asarray(with_alpha("RGB", (255, 255, 255))),
        "bool tensor": torch.from_numpy(RIGHT),
        "tensor (1, H, W)": torch.from_numpy(RIGHT)[None].float(),
        "tensor (1, 1, H, W)": torch.from_numpy(RIGHT)[None, None].bfloat16(),
        "tensor (1, 3, H, W)": torch.from_numpy(RIGHT)[None, None].float().expand(1, 3, 64, 64),
        "array (1, H, W)": RIGHT[None],
    }


@pytest.mark.parametrize("kind", masks())
def test_a_mask_means_the_same_in_every_form(kind: str) -> None:
    (found,) = load_masks(masks()[kind])
    assert np.array_equal(found, RIGHT)


def test_a_mask_from_a_file(tmp_path: Path) -> None:
    for kind in ("L", "1", "RGBA", "LA", "P", "I;16"):
        masks()[kind].save(tmp_path / "mask.png")
        assert np.array_equal(load_mask(tmp_path / "mask.png"), RIGHT), kind
    masks()["RGB"].save(tmp_path / "mask.jpg", quality=95)
    assert np.array_equal(load_mask(tmp_path / "mask.jpg"), RIGHT)


def test_only_bright_and_opaque_pixels_count() -> None:
    black = with_alpha("RGB", (0, 0, 0))
    assert not load_mask(black).any()
    assert not load_mask(with_alpha("RGB", (255, 255, 255), np.zeros((64, 64), bool))).any()


def test_half_of_the_range_is_bright() -> None:
    assert load_mask(np.array([[127, 128, 255]], dtype=np.uint8)).tolist() == [[False, True, True]]
    assert load_mask(np.array([[0.49, 0.5, 1.0]])).tolist() == [[False, True, True]]
    assert load_mask(np.array([[32767, 32768, 65535]], dtype=np.uint16)).tolist() == [[False, True, True]]


def test_several_masks_and_batches() -> None:
    both = np.stack([RIGHT, ~RIGHT])
    tensor = torch.from_numpy(both)
    for given in (both, list(both), tensor, [tensor], tensor[:, None], [Image.fromarray(one) for one in both]):
        found = load_masks(given)
        assert np.array_equal(np.stack(found), both)
    assert np.array_equal(np.stack(load_masks(tensor[:1])), both[:1])
    assert np.array_equal(np.stack(load_masks(tensor[0])), both[:1])


@pytest.mark.parametrize(
    ("mask", "words"),
    [
        (np.full((4, 4), -1.0), "outside of its range"),
        (np.full((4, 4), np.nan), "outside of its range"),
        (np.zeros((4, 4, 5, 2)), "shape"),
        (np.zeros((0, 4)), "shape|no pixels"),
    ],
)
def test_masks_that_are_none(mask: np.ndarray, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        load_mask(mask)


def test_kept_pixels_are_exactly_the_originals(small_model: JanusFlow, scene: Image.Image) -> None:
    (picture,) = small_model.generate(PROMPT, image=scene, mask=RIGHT, **FAST)
    found, original = np.asarray(picture), np.asarray(scene)
    assert np.array_equal(found[~RIGHT], original[~RIGHT])
    assert not np.array_equal(found[RIGHT], original[RIGHT])
    array = small_model.generate(PROMPT, image=scene, mask=RIGHT, output_type="np", **FAST)
    assert np.allclose(array[0][~RIGHT], original[~RIGHT] / 255, atol=1e-6)
    (free,) = small_model.generate(PROMPT, image=scene, mask=RIGHT, paste_original=False, **FAST)
    assert np.array_equal(np.asarray(free)[RIGHT], found[RIGHT])
    assert not np.array_equal(np.asarray(free)[~RIGHT], original[~RIGHT])


def test_kept_pixels_of_a_cropped_picture_are_those_of_the_crop(small_model: JanusFlow) -> None:
    wide = Image.fromarray(np.random.default_rng(2).integers(0, 256, (64, 96, 3), dtype=np.uint8))
    mask = np.zeros((64, 96), dtype=np.uint8)
    mask[:, 60:] = 1
    (picture,) = small_model.generate(PROMPT, image=wide, mask=mask, **FAST)
    assert np.array_equal(np.asarray(picture)[:, :44], np.asarray(wide)[:, 16:60])


def test_each_picture_of_a_batch_keeps_its_own_pixels(small_model: JanusFlow, scene: Image.Image) -> None:
    other = Image.new("RGB", (64, 64), (0, 0, 200))
    found = small_model.generate(
        [PROMPT, "a star"],
        image=[scene, other],
        mask=np.stack([RIGHT, ~RIGHT]),
        num_images_per_prompt=2,
        batch_size=3,
        **FAST,
    )
    for picture, original, mask in zip(found, [scene] * 2 + [other] * 2, [RIGHT] * 2 + [~RIGHT] * 2, strict=True):
        assert np.array_equal(np.asarray(picture)[~mask], np.asarray(original)[~mask])


def test_a_mask_that_is_bright_nowhere_warns(small_model: JanusFlow, scene: Image.Image) -> None:
    with pytest.warns(UserWarning, match="bright nowhere"):
        (picture,) = small_model.generate(PROMPT, image=scene, mask=np.zeros((64, 64), np.uint8), **FAST)
    assert np.array_equal(np.asarray(picture), np.asarray(scene))


def test_arrays_tensors_and_latents_as_pictures_to_start_from(small_model: JanusFlow, scene: Image.Image) -> None:
    settings: dict[str, Any] = {"strength": 0.5, "output_type": "latent", **FAST}
    expected = small_model.generate([PROMPT] * 2, image=[scene, scene], **settings)
    array = np.stack([np.asarray(scene, dtype=np.float32) / 255] * 2)
    for image in (array, torch.from_numpy(array).permute(0, 3, 1, 2), list(array)):
        assert torch.allclose(small_model.generate([PROMPT] * 2, image=image, **settings), expected, atol=1e-5)
    latents = small_model.codec.encode(torch.from_numpy(array).permute(0, 3, 1, 2) * 2 - 1)
    assert torch.allclose(small_model.generate([PROMPT] * 2, image=latents, **settings), expected, atol=1e-4)
    again = small_model.generate([PROMPT] * 2, image=latents, mask=RIGHT, **FAST)
    decoded = small_model.codec.decode(latents).add(1).mul(127.5).round().permute(0, 2, 3, 1).numpy()
    assert np.array_equal(np.asarray(again[1])[~RIGHT], decoded[1][~RIGHT])
    with pytest.raises(ValueError, match="shape"):
        small_model.generate(PROMPT, image=torch.zeros(1, 7, 8, 8), **settings)


def test_a_cell_with_any_bright_pixel_is_repainted() -> None:
    mask = Image.new("L", (64, 64), 0)
    mask.putpixel((17, 9), 255)
    grid = latent_mask(fit_mask(mask, 64, 64), 8)
    assert grid.shape == (1, 8, 8)
    assert grid.sum() == 1
    assert grid[0, 1, 2] == 1


def test_a_mask_is_cropped_like_its_picture_and_keeps_thin_strokes() -> None:
    picture, mask = Image.new("RGB", (800, 400)), Image.new("L", (800, 400), 0)
    picture.paste((255, 0, 0), (600, 0, 800, 400))  # right of the middle square that is kept
    picture.paste((255, 255, 255), (420, 210, 421, 211))
    mask.paste(255, (600, 0, 800, 400))
    mask.putpixel((420, 210), 255)  # a stroke of one pixel, where the picture is white
    grid = latent_mask(fit_mask(mask, 64, 64), 8)
    assert grid.nonzero().tolist() == [[0, 4, 4]]
    assert fit_picture(picture, 64, 64)[1].argmax() // 64 // 8 == 4


def test_a_very_long_picture_is_cropped_before_it_is_enlarged() -> None:
    assert fit_picture(Image.new("RGB", (2, 1_000_000)), 64, 64).shape == (3, 64, 64)


def test_a_picture_is_cropped_not_squeezed() -> None:
    wide = Image.new("RGB", (200, 100), (255, 0, 0))
    wide.paste((0, 0, 255), (50, 0, 150, 100))
    pixels = fit_picture(wide, 32, 32)
    assert pixels.shape == (3, 32, 32)
    assert torch.equal(pixels[:, :, 2:-2], torch.tensor([-1.0, -1.0, 1.0]).view(3, 1, 1).expand(3, 32, 28))
