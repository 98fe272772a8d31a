"""Copies of pictures and of conversations, found by nearness."""

from __future__ import annotations

import io
from collections.abc import Callable
from dataclasses import replace
from random import Random

import numpy as np
import pytest
from PIL import Image

from janusflow.data.duplicates import Copies, digest_of
from janusflow.data.records import Record
from janusflow.tinyworld.captions import KINDS, sample_pair
from janusflow.tinyworld.scenes import render


def noise(number: int) -> Image.Image:
    pixels = np.random.default_rng(number).integers(0, 256, (6, 8, 3), dtype=np.uint8)
    return Image.fromarray(pixels).resize((64, 48), Image.Resampling.NEAREST)


def smooth(number: int) -> Image.Image:
    return noise(number).resize((96, 96), Image.Resampling.BICUBIC)


def scene(number: int) -> Image.Image:
    return Image.fromarray(render(sample_pair(Random(number), tuple(KINDS)[number % len(KINDS)])[1]))


def recompressed(image: Image.Image, quality: int) -> Image.Image:
    file = io.BytesIO()
    image.save(file, "JPEG", quality=quality)
    return Image.open(file).convert("RGB")


def digest(*images: Image.Image, turns: tuple[tuple[str, str], ...] = ()) -> str:
    return digest_of(Record("x", turns=turns), images)


@pytest.mark.parametrize("make", [noise, smooth, scene])
def test_exact_recompressed_and_scaled_copies_are_found_and_other_pictures_are_not(make: object) -> None:
    copies, pictures = Copies(), [make(number) for number in range(60)]  # type: ignore[operator]
    for picture in pictures:
        assert digest(picture) not in copies
        copies.add(digest(picture))
    for picture in pictures:
        larger = picture.resize((picture.width * 3, picture.height * 3), Image.Resampling.BICUBIC)
        for copy in (picture, larger, *(recompressed(picture, quality) for quality in (50, 75, 95))):
            assert digest(copy) in copies


def test_plain_pictures_differ_by_their_color() -> None:
    copies = Copies([digest(Image.new("RGB", (9, 9), (shade, 0, 0))) for shade in (0, 200)])
    assert digest(Image.new("RGB", (9, 9), (100, 0, 0))) not in copies
    assert digest(Image.new("RGB", (9, 9), (201, 1, 0))) in copies


def test_conversations_are_copies_if_their_words_are_equal_too() -> None:
    copies = Copies([digest(noise(1), noise(2), turns=(("what?", "a star"),)), digest(turns=(("who?", "me"),))])
    assert digest(recompressed(noise(1), 80), noise(2), turns=(("what?", "a star"),)) in copies
    assert digest(noise(1), noise(2), turns=(("what?", "a cross"),)) not in copies
    assert digest(noise(2), noise(1), turns=(("what?", "a star"),)) not in copies
    assert digest(noise(1), turns=(("what?", "a star"),)) not in copies
    assert digest(turns=(("who?", "me"),)) in copies and digest(turns=(("who?", "you"),)) not in copies


def test_a_record_that_is_forgotten_has_no_copies() -> None:
    copies = Copies([digest(noise(1)), "0123456789abcdef012", "00" * 96 + ":"])  # of earlier versions
    copies.discard(digest(noise(1)))
    assert digest(noise(1)) not in copies and "0123456789abcdef012" in copies


def test_pictures_that_differ_in_one_shape_are_distinct() -> None:
    for number in range(30):
        whole = sample_pair(Random(number), tuple(KINDS)[number % len(KINDS)])[1]
        shapes = whole.shapes if len(whole.shapes) > 1 else ()
        copies = Copies([digest(Image.fromarray(render(whole)))])
        for left_out in range(len(shapes)):
            fewer = replace(whole, shapes=shapes[:left_out] + shapes[left_out + 1 :])
            assert digest(Image.fromarray(render(fewer))) not in copies


@pytest.mark.parametrize("make", [smooth, scene])
@pytest.mark.parametrize("share", [0.5, 0.77, 0.9, 1.3])
def test_copies_of_any_size_are_found_compressed_again_too(make: Callable[[int], Image.Image], share: float) -> None:
    for number in range(8):
        picture = make(number)
        size = (round(picture.width * share), round(picture.height * share))
        for method in (Image.Resampling.BILINEAR, Image.Resampling.BICUBIC, Image.Resampling.LANCZOS):
            resized = picture.resize(size, method)
            assert digest(resized) in Copies([digest(picture)])
        assert digest(recompressed(resized, 80 if share > 0.8 else 95)) in Copies([digest(picture)])
        assert digest(picture) in Copies([digest(resized)])
