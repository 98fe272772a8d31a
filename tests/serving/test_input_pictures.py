"""Pictures that clients send."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image

from janusflow import JanusFlow
from janusflow.engine.inpainting import Kept, KnownPicture, known_picture
from janusflow.engine.size import Size
from janusflow.pipelines.provenance import input_digests
from janusflow.serving.input_pictures import read_edited
from janusflow.serving.settings import Limits
from tests.serving.test_images import png


@pytest.mark.parametrize(("width", "height"), [(301, 97), (50, 90), (64, 64), (7, 5)])
def test_a_picture_at_the_size_that_is_generated_has_the_same_result(
    small_model: JanusFlow, width: int, height: int
) -> None:
    random = np.random.default_rng(0)
    sent = Image.fromarray(random.integers(0, 256, (height, width, 3), dtype=np.uint8))
    alpha = Image.fromarray(random.integers(0, 2, (height, width), dtype=np.uint8) * 255)
    mask = Image.merge("RGBA", [*sent.split(), alpha])
    whole = read_edited(png(sent), png(mask), Limits())
    fitted = whole.fitted(64, 96)
    assert whole.mask is not None and fitted.mask is not None
    assert fitted.image.size == (96, 64) and fitted.mask.shape == (64, 96)

    def known(image: Image.Image, chosen: np.ndarray | None) -> tuple[KnownPicture, Kept | None]:
        return known_picture(small_model.codec, Size(1, 1, 64, 96), image, chosen, torch.device("cpu"))

    (before, kept), (after, kept_after) = known(whole.image, whole.mask), known(fitted.image, fitted.mask)
    assert torch.equal(before.latents, after.latents)
    assert before.repaint is not None and after.repaint is not None and torch.equal(before.repaint, after.repaint)
    assert kept is not None and kept_after is not None
    assert (kept.pixels == kept_after.pixels).all() and (kept.mask == kept_after.mask).all()
    assert fitted.digests == {"image": input_digests("image", sent), "mask": input_digests("mask", whole.mask)}
