"""The tiny world as training batches. Sample n of step s is a function of (seed, s, n), whatever ran before."""

from __future__ import annotations

from dataclasses import dataclass, replace
from random import Random

import numpy as np
import torch
from einops import rearrange
from torch import Tensor

from janusflow.tinyworld.captions import KINDS, describe, sample_pair
from janusflow.tinyworld.questions import sample_fact, sample_talk
from janusflow.tinyworld.scenes import COLORS, RESERVED_SHAPES, SHAPES, UNITS, Scene, Wish, render, sample_scene
from janusflow.tinyworld.source import spelled

FREE_COLORS = 0.25  # of the VAE's pictures: with only the ten colors it would turn any other into one of them
NOT_BACKGROUND = 0.12  # of [-1, 1]: how far a channel is from the background's at a pixel that shows something
SHARES = {  # of each kind of scene
    "single_object": 0.05,
    "two_object": 0.15,
    "counting": 0.20,
    "colors": 0.05,
    "position": 0.15,
    "color_attr": 0.15,
    "dense": 0.25,
}


def sample_rng(part: str, seed: int, step: int, index: int) -> Random:
    """Return the random generator of one sample."""
    return Random(f"{part}/{seed}/{step}/{index}")


def to_pixels(scenes: list[Scene]) -> Tensor:
    """(B, 3, 64, 64) float32 in [-1, 1]."""
    array = np.stack([render(scene) for scene in scenes])
    return torch.from_numpy(array).permute(0, 3, 1, 2).float().div(127.5).sub(1)


def any_scenes(seed: int, step: int, count: int, *, free_colors: float = FREE_COLORS) -> Tensor:
    """Pictures for the VAE: every shape, reserved ones too, one to five in a scene, a share of them in any colours."""
    scenes = []
    for index in range(count):
        rng, scene = sample_rng("vae", seed, step, index), None
        while scene is None:
            wishes = [Wish(kind=rng.choice(SHAPES + RESERVED_SHAPES)) for _ in range(rng.randint(1, 5))]
            scene = sample_scene(rng, wishes, training=False)
        scenes.append(_recolored(rng, scene) if rng.random() < free_colors else scene)
    return to_pixels(scenes)


def _recolored(rng: Random, scene: Scene) -> Scene:
    def any_rgb() -> tuple[int, int, int]:
        return rng.randrange(256), rng.randrange(256), rng.randrange(256)

    return replace(scene, shapes=tuple(replace(s, rgb=any_rgb()) for s in scene.shapes), background_rgb=any_rgb())


@dataclass(frozen=True)
class Described:
    """B pictures for the tower, in patches of p x p pixels, P of them.

    Attributes:
        pixels: (B, 3, 64, 64) in [-1, 1].
        words: their full descriptions.
        shown: (B, P, 2) long, see `patch_labels`.
        masks: (B, P, p * p) float32, 1 where a pixel is not background.
    """

    pixels: Tensor
    words: list[str]
    shown: Tensor
    masks: Tensor


def described_scenes(seed: int, step: int, count: int, side: int) -> Described:
    """Pictures with all that the renderer knows of side x side patches."""
    rngs = [sample_rng("tower", seed, step, index) for index in range(count)]
    scenes = [sample_pair(rng, _kind(rng, SHARES))[1] for rng in rngs]
    pixels = to_pixels(scenes)
    return Described(
        pixels, [describe(scene) for scene in scenes], patch_labels(scenes, side), patch_masks(pixels, scenes, side)
    )


def patch_labels(scenes: list[Scene], side: int) -> Tensor:
    """Which shape each patch shows: (B, side * side, 2) long, 1 + place of its kind and colour, 0 for none.

    A patch shows the shape whose rim is nearest to the patch's centre, or reaches beyond it, if it comes within half a
    patch.
    """
    patch = UNITS / side
    centres = (np.arange(side) + 0.5) * patch
    labels = np.zeros((len(scenes), side, side, 2), np.int64)
    for place, scene in enumerate(scenes):
        nearest = np.full((side, side), patch / 2)
        for shape in scene.shapes:
            away = np.hypot(centres[None, :] - shape.x, centres[:, None] - shape.y) - shape.radius
            here = away < nearest
            labels[place, here] = 1 + SHAPES.index(shape.kind), 1 + list(COLORS).index(shape.color)
            nearest = np.where(here, away, nearest)
    return torch.from_numpy(labels).flatten(1, 2)


def patch_masks(pixels: Tensor, scenes: list[Scene], side: int) -> Tensor:
    """Which pixels of each patch are not background: (B, side * side, pixels of a patch) float32."""
    background = torch.tensor([scene.background_rgb for scene in scenes]).float().div(127.5).sub(1)
    inside = (pixels - background[:, :, None, None]).abs().amax(dim=1) > NOT_BACKGROUND
    return rearrange(inside.float(), "b (h p) (w q) -> b (h w) (p q)", h=side, w=side)


def corpus(count: int) -> list[str]:
    """Sentences to learn the tokenizer from."""
    sentences = []
    for index in range(count):
        rng = sample_rng("corpus", 0, 0, index)
        task, scene = sample_pair(rng, rng.choice(KINDS))
        sentences += [f"User: {task.prompt}\n\nAssistant:", describe(scene)]
        for question in [*sample_talk(rng, scene, 3), sample_fact(rng)]:
            sentences.append(f"User: {spelled(rng, question.text)}\n\nAssistant: {question.answer}")
    return sentences


def _kind(rng: Random, shares: dict[str, float]) -> str:
    return rng.choices(list(shares), list(shares.values()))[0]
