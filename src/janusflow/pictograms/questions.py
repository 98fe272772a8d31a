"""Conversations about pictures: the subject, the style, the skin tone, the color, and whether something is there.

Half of the yes/no questions have yes as the answer. An absent subject that a question asks about is never a synonym, a
keyword or another gender of the subject shown.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Callable, Sequence
from random import Random

from janusflow.pictograms.captions import PLAIN, prompt, style_words, weight_words
from janusflow.pictograms.names import ICONS, Subject
from janusflow.pictograms.phrases import noun, synonyms, tone, with_article
from janusflow.pictograms.pictures import PHOSPHOR, Picture

Turn = tuple[str, str]

FEWEST, MOST = 2, 4  # turns per conversation
ABSENT_TRIES = 50
NEAR = 0.5  # share of absent subjects from the same subgroup
BRITISH = 0.3  # share of questions spelled "colour"
WHAT = ("What is this?", "What does the picture show?", "What is shown here?", "Name what you see.")
STYLE = ("Which style is this?", "In which style is it drawn?", "What is the style of this picture?")
THERE = ("Is there {a}?", "Is this {a}?", "Does the picture show {a}?")
TONE = ("Which skin tone?", "What is the skin tone?", "Which skin tone does the person have?")
COLOR = ("What color is it?", "Which color does it have?", "What is its color?")
GROUND = ("What color is the background?", "Which color is the background?")
WEIGHT = ("Which weight is the icon?", "How are the lines drawn?")
GENDER = ("Is this a man or a woman?", "Is it a man or a woman?")
DESCRIBE = ("Describe the picture.", "Describe what you see.")


class Conversations:
    """Maker of conversations; questions about absent subjects use the other subjects of the data set.

    Args:
        subjects: subjects of all pictures.
    """

    def __init__(self, subjects: Sequence[Subject]) -> None:
        self.names: dict[str, Subject] = {}  # by noun
        self.near: dict[str, list[str]] = defaultdict(list)
        for subject in subjects:
            name = noun(subject)
            if name not in self.names:
                self.names[name] = subject
                self.near[subject.subgroup].append(name)
        self.others: dict[bool, list[str]] = {True: [], False: []}  # icons, and other subjects
        for name, subject in self.names.items():
            self.others[subject.group == ICONS].append(name)
        self.words = {name: _words(name) for name in self.names}

    def talk(self, picture: Picture, rng: Random, background: str = PLAIN) -> list[Turn]:
        """Return a conversation of several turns about different things.

        Args:
            picture: see `Picture`.
            rng: source of all randomness.
            background: key of `BACKGROUNDS`.
        """
        makers = self._makers(picture, background)
        weights = {"there": 2.0, "what": 2.0, "describe": 0.4, "background": 0.5}
        left, chosen = list(makers), []
        for _ in range(min(rng.randint(FEWEST, MOST), len(left))):
            kind = rng.choices(left, [weights.get(name, 1.0) for name in left])[0]
            left.remove(kind)
            chosen.append(makers[kind](rng))
        return [(_spelled(question, rng), answer) for question, answer in chosen]

    def _makers(self, picture: Picture, background: str) -> dict[str, Callable[[Random], Turn]]:
        """Return makers of the questions that can be asked about a picture, by kind."""
        subject, name = picture.subject, noun(picture.subject)
        makers: dict[str, Callable[[Random], Turn]] = {
            "what": lambda rng: (rng.choice(WHAT), with_article(name)),
            "style": lambda rng: (rng.choice(STYLE), picture.style.words),
            "there": lambda rng: self.there(picture, rng),
            "background": lambda rng: (rng.choice(GROUND), background),
            "describe": lambda rng: (rng.choice(DESCRIBE), prompt(picture, background)),
        }
        if len(set(subject.tones)) == 1:
            makers["tone"] = lambda rng: (rng.choice(TONE[: 3 if subject.is_person else 2]), tone(subject))
        if subject.gender:
            makers["gender"] = lambda rng: (rng.choice(GENDER), subject.gender)
        color = picture.tint or ("" if picture.style.name == "high-contrast" else subject.color)
        if color:
            makers["color"] = lambda rng: (rng.choice(COLOR), color)
        if picture.style.name == PHOSPHOR:
            makers["weight"] = lambda rng: (rng.choice(WEIGHT), weight_words(picture.weight))
            makers["style"] = lambda rng: (rng.choice(STYLE), style_words(picture))
        return makers

    def there(self, picture: Picture, rng: Random) -> Turn:
        """Return a question whether something is there; yes is as frequent as no."""
        name, absent = noun(picture.subject), ""
        if rng.random() < 0.5:
            absent = self.absent(picture.subject, rng)
        others = synonyms(picture.subject)
        shown = rng.choice(others) if others and rng.random() < 0.2 else name
        return rng.choice(THERE).format(a=with_article(absent or shown)), "no" if absent else "yes"

    def absent(self, subject: Subject, rng: Random) -> str:
        """Return the name of a subject that pictures of the given one do not show, or "" if none is found."""
        own = set(_words(noun(subject))).union(*map(_words, (*subject.keywords, *subject.synonyms)))
        near, pool = self.near.get(subject.subgroup, []), self.others[subject.group == ICONS]
        if not pool:
            return ""
        for _ in range(ABSENT_TRIES):
            name = rng.choice(near if near and rng.random() < NEAR else pool)
            words, other = self.words[name], self.names[name]
            if words <= own or own <= words or (subject.role and other.role == subject.role):
                continue
            if noun(subject) in other.synonyms or set(subject.synonyms) & {name, *other.synonyms}:
                continue
            return name
        return ""


def _words(text: str) -> set[str]:
    """Return the words of a name that distinguish subjects."""
    words = re.findall(r"[\w'-]+", text.lower())
    return {word.removesuffix("s") for word in words if word not in ("a", "an", "the", "of", "with", "in", "and", "on")}


def _spelled(question: str, rng: Random) -> str:
    return question.replace("color", "colour") if rng.random() < BRITISH else question
