"""Captions of pictures in several wordings, and the prompts of the evaluation lists.

Every wording names the subject, a tint, and a background other than white. Some leave the style open, so that a prompt
without a style stands for all styles.
"""

from __future__ import annotations

from random import Random

from janusflow.pictograms.phrases import noun, synonyms, tone, toned, with_article
from janusflow.pictograms.pictures import PHOSPHOR, Picture
from janusflow.pictograms.render import BACKGROUNDS

PLAIN = next(iter(BACKGROUNDS))  # not named
FEWEST, MOST = 2, 3  # keywords per caption
WEIGHT_WORDS = {"regular": "regular", "fill": "filled"}


def weight_words(weight: str) -> str:
    """Return the words for a Phosphor weight in captions and answers."""
    return WEIGHT_WORDS.get(weight, weight)


def style_words(picture: Picture) -> str:
    """Return a picture's style in words, such as "flat" or "Phosphor bold"."""
    weight = f" {weight_words(picture.weight)}" if picture.weight else ""
    return f"{picture.style.words}{weight}"


def prompt(picture: Picture, background: str = PLAIN) -> str:
    """Return the caption that names everything, as used in evaluation lists.

    Example:
        "a fox in flat style", "a green acorn icon in Phosphor bold style on a light blue background"
    """
    return f"{subject_words(picture)} in {style_words(picture)} style{_on(background)}"


def subject_words(picture: Picture) -> str:
    """Return the subject in words, with its article, skin tone and tint."""
    name = noun(picture.subject)
    if picture.style.name == PHOSPHOR:
        return with_article(f"{picture.tint} {name} icon".strip())
    return toned(with_article(name), picture.subject)


def captions(picture: Picture, rng: Random, background: str = PLAIN) -> list[str]:
    """Return all wordings of a picture's caption, starting with the one that names everything.

    Args:
        picture: see `Picture`.
        rng: random generator that chooses keywords.
        background: key of `BACKGROUNDS`.
    """
    style, ground = style_words(picture), _on(background)
    also = "" if background == PLAIN else f", {background} background"
    if picture.style.name == PHOSPHOR:
        return [prompt(picture, background), *(text for text in _of_icon(picture, ground, also))]
    subject, name = picture.subject, noun(picture.subject)
    listed = f", {tone(subject)} skin" if subject.tones else ""
    whole, bare = subject_words(picture), toned(name, subject)
    article = with_article(style)[: -len(style)]
    found = [
        prompt(picture, background),
        f"{whole}{ground}",
        f"{whole}, {style} style{also}",
        f"{bare}, {style} style{also}",
        f"an emoji of {whole} in {style} style{ground}",
        f"{article}{style} emoji of {whole}{ground}",
        f"{style} style: {whole}{ground}",
    ]
    if subject.keywords:
        words = list(subject.keywords)
        chosen = rng.sample(words, min(rng.randint(FEWEST, MOST), len(words)))
        found.append(f"{', '.join(dict.fromkeys([name, *chosen]))}{listed}, {style} style{also}")
    for other in synonyms(subject):
        found += [f"{with_article(other)}, {style} style{also}", f"{with_article(other)}{ground}"]
    return found


def _of_icon(picture: Picture, ground: str, also: str) -> list[str]:
    """Return the wordings for a tinted icon."""
    name, weight, tint = noun(picture.subject), weight_words(picture.weight), picture.tint
    return [
        f"{with_article(f'{tint} {name} icon')}, {weight}{also}",
        f"{with_article(f'{weight} {tint} {name} icon')}{ground}",
        f"{with_article(f'{tint} icon')} of {with_article(name)}, {weight} Phosphor style{also}",
        f"{with_article(f'{tint} {name} icon')}{ground}",
        f"{name}, icon, {tint}, {weight}{also}",
    ]


def _on(background: str) -> str:
    return "" if background == PLAIN else f" on {with_article(f'{background} background')}"
