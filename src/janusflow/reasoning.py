"""Find the answer in replies of models that write down their reasoning first.

Every judge's reply passes through here (`Benchmark.judge_model`), and every caption (`data/prepare.py`).
"""

from __future__ import annotations

import re

NAMES = "think|thinking|thought|reasoning"
OPENING = re.compile(rf"[<\[◁]\s*(?:{NAMES})\s*[>\]▷]", re.IGNORECASE)
CLOSING = re.compile(rf"[<\[◁]\s*/\s*(?:{NAMES})\s*[>\]▷]", re.IGNORECASE)


def final_answer(reply: str) -> str:
    """Return the part of a reply after its reasoning.

    Reasoning is between `<think>` and `</think>`; `<thinking>`, `<thought>` and `<reasoning>`, `[THINK]` (Mistral)
    and `◁think▷` (Kimi) count as well. Everything up to the last closing tag is dropped, with or without an opening
    tag, because some chat templates put the opening tag into the prompt (DeepSeek, Qwen).

    Returns:
        The answer; empty if the reasoning does not end because the reply was cut off. A reply without reasoning is
        returned unchanged.

    Example:
        >>> final_answer("<think>It is red, so ...</think> yes")
        'yes'
    """
    start = max((found.end() for found in CLOSING.finditer(reply)), default=0)
    if OPENING.search(reply, start):
        return ""
    return reply[start:].lstrip() if start else reply
