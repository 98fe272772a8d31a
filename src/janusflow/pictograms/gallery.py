"""Generated emoji, subjects by style, with frames around the combinations that training never sees."""

from __future__ import annotations

import itertools
from pathlib import Path

from janusflow.arguments import quoted
from janusflow.pictograms.catalogue import STYLES
from janusflow.pictograms.held_out import STYLE, read_held_out
from janusflow.pictograms.table import style_table
from janusflow.pipelines.base import Pipeline
from janusflow.pipelines.sheet import make_folder, save_png

SUBJECTS = {  # by id; half of them have a style that is held out
    "1f98a": "a fox",
    "1f353": "a strawberry",
    "1f355": "a pizza",
    "1f344": "a mushroom",
    "1f680": "a rocket",
    "1f3e0": "a house",
    "1f335": "a cactus",
    "1f47b": "a ghost",
    "1f989": "an owl",
    "1f4f7": "a camera",
    "1f3b8": "a guitar",
    "1f34f": "a green apple",
}
EMOJI_STYLES = ("noto", "noto-v1", "flat", "3d", "high-contrast")
GUIDANCE = 4.0


def gallery_prompts() -> dict[tuple[str, str], tuple[str, bool]]:
    """Return the prompt of each subject and style, and whether training never sees this combination.

    Example:
        >>> gallery_prompts()["1f344", "noto-v1"]
        ('a mushroom in classic Noto style', True)
    """
    held = {(pair.subject, pair.value) for pair in read_held_out().pairs[STYLE]}
    return {
        (subject, style): (f"{words} in {STYLES[style].words} style", (subject, STYLES[style].family) in held)
        for (subject, words), style in itertools.product(SUBJECTS.items(), EMOJI_STYLES)
    }


def write_gallery(
    model: Pipeline, file: Path, *, seed: int = 0, guidance_scale: float = GUIDANCE, steps: int | None = None
) -> None:
    """Generate one picture of each subject in each style, and write them as a table.

    Args:
        model: a model trained on the pictograms.
        file: the PNG to write.
        seed: seed of the noise of the first picture; the others count up.
        guidance_scale: see `generate`.
        steps: number of solver steps; None for the model's default, and for a Janus model, which has none.

    Raises:
        ValueError: if the file cannot be written, or the model does not accept an option.
    """
    if file.is_dir():
        raise ValueError(f"{quoted(str(file))} is a folder; expected the name of a PNG file")
    make_folder(file.parent)
    prompts = gallery_prompts()
    options: dict[str, float] = {"guidance_scale": guidance_scale}
    if steps is not None:
        options["num_inference_steps"] = steps
    seeds = [seed + number for number in range(len(prompts))]
    pictures = model.generate([prompt for prompt, _ in prompts.values()], seed=seeds, **options)
    made = {key: (picture, held) for (key, (_, held)), picture in zip(prompts.items(), pictures, strict=True)}
    lines = [(words, {style: made[subject, style] for style in EMOJI_STYLES}) for subject, words in SUBJECTS.items()]
    save_png(style_table(lines, EMOJI_STYLES), file, {"seed": seed, **options})
