"""Replies of models that reason, read without their thoughts."""

from __future__ import annotations

import pytest

from janusflow.reasoning import final_answer


@pytest.mark.parametrize(
    ("reply", "answer"),
    [
        ("yes", "yes"),
        ("  as it is \n", "  as it is \n"),
        ("", ""),
        ("<think>It may be no.</think>\n\nyes", "yes"),
        ("<think>\n\n</think>\n\nyes", "yes"),
        ("It may be no.\n</think>\nyes", "yes"),
        ("<think>a</think>no<think>b</think> yes", "yes"),
        ("<THINKING>no</THINKING>yes", "yes"),
        ("<thought>no</thought>yes", "yes"),
        ("[THINK]no[/THINK]yes", "yes"),
        ("◁think▷no◁/think▷yes", "yes"),
        ("<think>It may be no, or", ""),
        ("<think>no</think>", ""),
        ("<think>no</think><think>yes", ""),
        ("a < b and I think > c", "a < b and I think > c"),
    ],
)
def test_the_answer_is_what_follows_the_thoughts(reply: str, answer: str) -> None:
    assert final_answer(reply) == answer
