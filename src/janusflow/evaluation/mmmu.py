"""MMMU (arXiv 2311.16502): college questions, most with options. The official reading of answers, and its accuracy.

An answer from which no option can be read is a random one in the official evaluation; here too, with a seed.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from random import Random

LONG = 5  # words: only longer answers are searched for the text of an option
MARKS = ",.!?;:'"
KEYS = ("could be ", "so ", "is ", "thus ", "therefore ", "final ", "answer ", "result ")
NUMBERS = (
    re.compile(r"-?\b\d{1,3}(?:,\d{3})+\b"),  # 1,234
    re.compile(r"-?\d+(?:\.\d+)?[eE][+-]?\d+"),  # 1.2e-3
    re.compile(r"-?(?:\d+\.\d+|\.\d+|\d+\b)(?![eE][+-]?\d+)(?![,\d])"),  # 1.2
)
Value = float | str


@dataclass(frozen=True)
class MmmuQuestion:
    """One question.

    Attributes:
        name: its id; the subject stands in it.
        options: text of each option by its letter; none for an open question.
        answers: the right letter, or the right answers of an open question.
    """

    name: str
    options: Mapping[str, str]
    answers: tuple[str, ...]


def read_choice(response: str, options: Mapping[str, str], rng: Random) -> str:
    """The letter that a response chooses.

    In this order: "(A)"; "A " as a word; "A."; the text of an option, if the response has more than five words. Of
    several the one mentioned last; of none one by chance.
    """
    for mark in MARKS:
        response = response.strip(mark)
    response = f" {response} "
    for form in ("({})", "{} ", "{}."):
        found = [letter for letter in options if form.format(letter) in response]
        if found:
            last = "({})" if form == "({})" else " {} "
            return max(found, key=lambda letter: response.rfind(last.format(letter)))
    lower = response.lower()
    if len(response.split()) > LONG:
        found = [letter for letter, text in options.items() if text.lower() in lower]
        if found:
            return max(found, key=lambda letter: lower.rfind(options[letter].lower()))
    return rng.choice(list(options))


def read_open(response: str) -> list[Value]:
    """Candidates for the answer in a response to an open question: its key phrases and their numbers, normalised."""
    phrases = _key_phrases(response)
    numbers = [number for phrase in phrases for number in _numbers(phrase)]
    values = [value for part in [*phrases, *numbers] for value in _normal(part)]
    return list(dict.fromkeys(values))


def open_is_right(candidates: Sequence[Value], answers: Sequence[str]) -> bool:
    """Whether an answer stands in a candidate text, or equals a candidate number (rounded to two places)."""
    right = [value for answer in answers for value in _normal(answer)]
    for candidate in candidates:
        if isinstance(candidate, str):
            if any(isinstance(value, str) and value in candidate for value in right):
                return True
        elif candidate in right:
            return True
    return False


def score(questions: Sequence[MmmuQuestion], responses: Sequence[str], *, seed: int = 42) -> float:
    """Share of right answers over all questions (micro).

    Args:
        questions: with options or open.
        responses: what the model said, in the same order.
        seed: of the choices by chance.

    Raises:
        ValueError: if their numbers differ or there are none.
    """
    if not questions or len(questions) != len(responses):
        raise ValueError(f"{len(responses)} answers were given to {len(questions)} questions")
    rng, right = Random(seed), 0
    for question, response in zip(questions, responses, strict=True):
        if question.options:
            right += read_choice(response, question.options, rng) in question.answers
        else:
            right += open_is_right(read_open(response), question.answers)
    return right / len(questions)


def _key_phrases(response: str) -> list[str]:
    """The shortest tail after an indicator in each sentence; the whole response if no sentence has one."""
    response = response.strip().strip(".").lower()
    sentences = re.split(r"\.\s(?=[A-Z])|\n", response)
    found = []
    for index, sentence in enumerate(sentences):
        indicators = [*KEYS, "="] if index == len(sentences) - 1 else KEYS
        tails = [sentence.split(key)[-1].strip() for key in indicators if key in sentence]
        if tails:
            shortest = min(tails, key=len)
            if shortest not in (":", ",", ".", "!", "?", ";", "'", ""):
                found.append(shortest)
    return found or [response]


def _numbers(text: str) -> list[str]:
    return [number for pattern in NUMBERS for number in pattern.findall(text)]


def _normal(text: str) -> list[Value]:
    """A number rounded to two places; or lower-cased text, a single letter with a space on one of its sides."""
    text = text.strip()
    try:
        return [round(float(text.replace(",", "")), 2)]
    except ValueError:
        text = text.lower()
        return [f" {text}", f"{text} "] if len(text) == 1 else [text]
