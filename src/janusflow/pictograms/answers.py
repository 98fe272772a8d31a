"""Judge answers about pictograms: names with synonyms and keywords, and styles."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any

from janusflow.pictograms.catalogue import STYLES
from janusflow.pictograms.names import TONES

SEVERAL = ", "  # in names of joined code points, which say what was joined and not what it shows: "adult, rocket"
ARTICLE = re.compile(r"^(?:a|an|the) ")
ONE_TONE = "|".join(sorted(TONES, key=len, reverse=True))
TONE = re.compile(rf" (?:with|and) (?:{ONE_TONE})(?: and (?:{ONE_TONE}))* skin tones?$")


def judged_name(answer: str, row: Mapping[str, Any]) -> dict[str, Any]:
    """Judge whether an answer names what a picture shows.

    Articles, case, full stops and a skin tone at the end are ignored.

    Args:
        answer: answer to "What is this?".
        row: columns of the picture.

    Returns:
        The score (exact or a synonym), and three figures, each more lenient than the one before: exact; exact or a
        synonym; and exact, a synonym or any keyword of the picture ("pizza" for a slice of pizza, but also "food").
    """
    said = plain(answer)
    exact = said == plain(row["label"])
    known = exact or said in _plain(one for one in row["synonyms"] if SEVERAL not in one)
    loose = known or said in _plain(row["keywords"])
    found = {"exact": float(exact), "exact or synonym": float(known), "exact, synonym or keyword": float(loose)}
    return {"score": float(known), **found}


def judged_style(answer: str, row: Mapping[str, Any]) -> dict[str, Any]:
    """Judge whether an answer is a picture's style, with or without the word "style"."""
    said = plain(answer).removesuffix(" style")
    right = float(said == STYLES[row["style"]].words.lower())
    return {"score": right, "style": right}


def plain(text: str) -> str:
    """Return a text in lower case, without its article, skin tone and full stop.

    Example:
        >>> plain("A farmer with medium-dark skin tone.")
        'farmer'
    """
    text = " ".join(text.lower().replace("’", "'").split()).rstrip(" .!")
    return TONE.sub("", ARTICLE.sub("", text))


def _plain(texts: Iterable[str]) -> set[str]:
    return {plain(text) for text in texts}
