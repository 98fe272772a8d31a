"""How questions are asked: in the form of VLMEvalKit's wrapper of Janus, which the authors used, or plainly."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

BRIEFLY = "Answer the question using a single word or phrase."
LETTER_ONLY = "Answer with the option's letter from the given choices directly."


@dataclass(frozen=True)
class BriefSettings:
    """Settings of a benchmark whose questions are answered in a word.

    Attributes:
        prompt: form of the question; see `brief_question`.
    """

    prompt: Literal["wrapper", "plain"] = "wrapper"


def brief_question(question: str, prompt: str) -> tuple[str, str | None]:
    """Return a question that is answered in a word, and the system prompt (None for the model's own).

    Args:
        question: question of the benchmark.
        prompt: "wrapper" asks as the wrapper does: an instruction after the question, and no system prompt; "plain"
            asks only the question.

    Example:
        >>> brief_question("Is there a dog?", "wrapper")
        ('Is there a dog?\\nAnswer the question using a single word or phrase.', '')
    """
    return (f"{question}\n{BRIEFLY}", "") if prompt == "wrapper" else (question, None)


def choice_question(
    question: str, options: Mapping[str, str], prompt: str, *, hint: str = ""
) -> tuple[str, str | None]:
    """Return a question with options as it is asked, and the system prompt (None for the model's own).

    Args:
        question: question of the benchmark.
        options: texts by letter; none for an open question.
        prompt: "wrapper" asks as the wrapper does: hint, question, options, an instruction, and no system prompt;
            "plain" leaves out the instruction.
        hint: hint of the benchmark.

    Example:
        >>> print(*choice_question("What is it?", {"A": "a cat", "B": "a dog"}, "plain"), sep="; ")
        What is it?
        A. a cat
        B. a dog; None
    """
    text = f"Hint: {hint}\n{question}\n" if hint else f"{question}\n"
    if prompt == "plain":
        return text + listed(options), None
    return text + (f"{listed(options)}\n\n{LETTER_ONLY}" if options else "Answer the question directly."), ""


def listed(options: Mapping[str, str]) -> str:
    """Return the options, each on a line after its letter."""
    return "\n".join(f"{letter}. {text}" for letter, text in options.items())
