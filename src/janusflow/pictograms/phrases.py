"""Subjects in words: emojibase's labels as noun phrases, with articles, skin tones and synonyms."""

from __future__ import annotations

import re

from janusflow.pictograms.names import Subject

MASS = frozenset(
    re.findall(
        r"\S+",
        """
    american-football asparagus bacon badminton baggage-claim baseball basketball biohazard bowling bread
    breast-feeding broccoli bubble-tea building-construction butter camping canned-food chess children-crossing
    confetti construction cooked-rice cooking coral cricket-game curry-rice customs dashing-away divide dizziness
    dna dynamite evil field-hockey fire fish-cake-with-swirl fog foggy folded-hands garlic ginger green-salad hair
    high-voltage honey horse-racing hot-pepper-sauce hundred-points ice ice-hockey infinity information lacrosse
    leafy-greens left-luggage locked locked-with-key locked-with-pen lotion love luggage milky-way minus
    money-with-wings multiply nail-polish nature-park no-entry no-littering no-one-under-eighteen no-smoking
    non-potable-water olive passport-control ping-pong plus popcorn potable-water prohibited radioactive rain
    registered rice rolled-up-newspaper rolling-on-the-floor-laughing rugby-football sake salt shaved-ice soap
    soft-ice-cream softball spaghetti sparkles star-struck sunrise sunset sushi sweat tempura tennis toilet-paper
    unlocked vibration-mode volleyball water-wave wine wireless wood
    """,
    )
)
"""Labels that take no article, written with hyphens."""
NAMES = (
    *("mount fuji", "Statue of Liberty", "Tokyo tower", "Aries", "Taurus", "Gemini", "Cancer", "Leo"),
    *("Virgo", "Libra", "Scorpio", "Sagittarius", "Capricorn", "Aquarius", "Pisces", "Ophiuchus", "Santa Claus"),
    *("Mrs. Claus", "Mx Claus"),
)
SINGULAR = ("ss", "us", "is", "as")
PLURAL = ("men", "women", "people", "children", "feet", "dice", "maracas", "skis")
CONSONANT = re.compile(r"(uni|use|uk|eu|ewe|one\b|one-|once|u-)", re.IGNORECASE)
LETTERS = re.compile(r"(ATM|SOS|NG|x-ray)\b")  # read letter by letter
QUOTES = str.maketrans({"’": "'", "“": '"', "”": '"'})


def noun(subject: Subject) -> str:
    """Return the name of a subject, without article and skin tone.

    Example:
        >>> noun(Subject("", "flag: France")), noun(Subject("", "man: red hair"))
        ('flag of France', 'man with red hair')
    """
    label = subject.label.translate(QUOTES)
    head, colon, rest = label.partition(": ")
    if colon:
        if head == "flag":
            label = f"flag of {rest}"
        elif head == "keycap":
            label = f"keycap {rest}"
        elif head in ("man", "woman", "person"):
            label = f"bald {head}" if rest == "bald" else f"{head} with {'a beard' if rest == 'beard' else rest}"
        else:
            parts = rest.split(", ")
            label = f"{head} of {' and '.join([', '.join(parts[:-1]), parts[-1]] if parts[1:] else parts)}"
    if subject.subgroup == "time" and label.endswith(("o'clock", "-thirty")):
        label = f"clock showing {label.replace('-thirty', ' thirty')}"
    return f"{label} facing right" if subject.right else label


def with_article(phrase: str) -> str:
    """Return a noun phrase with "a" or "an", with "the" (flags), or without an article.

    Example:
        >>> with_article("fox"), with_article("orange book"), with_article("grapes")
        ('a fox', 'an orange book', 'grapes')
    """
    head = re.split(r" (?:with|of|in|on|showing|without|and) ", phrase)[0]
    last = head.split()[-1].lower() if head.split() else ""
    plural = last.endswith("s") and not last.endswith(SINGULAR) and not last[0].isdigit()
    plural = plural or last in PLURAL or phrase.startswith(("men ", "women ", "people "))
    if phrase.startswith(("keycap ", *NAMES)) or phrase.lower().replace(" ", "-") in MASS:
        return phrase
    if phrase.startswith("flag of "):
        return f"the {phrase}"
    if plural and not phrase.startswith(("pair", "bunch", "man", "woman", "person")):
        return phrase
    vowel = phrase[0].lower() in "aeiou8" and not CONSONANT.match(phrase)
    vowel = vowel or bool(LETTERS.match(phrase))
    return f"{'an' if vowel else 'a'} {phrase}"


def tone(subject: Subject) -> str:
    """Return a subject's skin tones, such as "medium-dark" or "light and dark", or ""."""
    return " and ".join(dict.fromkeys(subject.tones))


def toned(phrase: str, subject: Subject) -> str:
    """Append the skin tones of a subject's people to a phrase."""
    if not subject.tones:
        return phrase
    joint = "and" if re.search(r" (with|in|of|showing) ", phrase) else "with"
    several = len(set(subject.tones)) > 1
    return f"{phrase} {joint} {tone(subject)} skin tone{'s' if several else ''}"


def synonyms(subject: Subject) -> list[str]:
    """Return other names of a subject without skin tones, without article; empty if there are none."""
    return [] if subject.tones else [one.translate(QUOTES) for one in subject.synonyms]
