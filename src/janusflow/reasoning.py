"""Replies of models that reason: what they answer, without the thoughts that they write down before it.

Every judge's reply passes through here (`Benchmark.judge_model`), and every caption (`data/prepare.py`).
"""

from __future__ import annotations

import re

NAMES = "think|thinking|thought|reasoning"
OPENING = re.compile(rf"[<\[◁]\s*(?:{NAMES})\s*[>\]▷]", re.IGNORECASE)
CLOSING = re.compile(rf"[<\[◁]\s*/\s*(?:{NAMES})\s*[>\]▷]", re.IGNORECASE)


def final_answer(reply: str) -> str:
    """Return what a reply says after its thoughts.

    Thoughts stand between `<think>` and `</think>`; `<thinking>`, `<thought>` and `<reasoning>`, `[THINK]` (Mistral)
    and `◁think▷` (Kimi) count as well. Everything through the last closing tag is dropped, whether or not the opening
    tag is there: some chat templates put it into the prompt (DeepSeek, Qwen).

    Args:
        reply: of a model.

    Returns:
        The answer. Empty if the thoughts do not end, because the reply was cut off: then there is no answer. A reply
        without thoughts is returned as it is.

    Example:
        >>> final_answer("<think>It is red, so ...</think> yes")
        'yes'
    """
    start = max((found.end() for found in CLOSING.finditer(reply)), default=0)
    if OPENING.search(reply, start):
        return ""
    return reply[start:].lstrip() if start else reply
