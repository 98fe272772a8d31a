"""Errors of a request's body name the parameter as the client wrote it."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import ValidationError

from janusflow.serving.api.chat_body import ChatBody
from janusflow.serving.errors import from_validation

HELLO = [{"role": "user", "content": "hello"}]


def asked(part: Any) -> dict[str, Any]:
    return {"messages": [{"role": "user", "content": [part]}]}


@pytest.mark.parametrize(
    ("changes", "param", "message"),
    [
        (asked({"type": "text", "text": "a", "foo": 1}), "messages.0.content.0.foo", "is not a parameter"),
        (asked({"type": "text"}), "messages.0.content.0.text", "is missing"),
        (asked({"type": "image_url", "image_url": "a.png"}), "messages.0.content.0.image_url", "valid dictionary"),
        (asked({"type": "audio"}), "messages.0.content.0", "'text', 'image_url'"),
        ({"messages": [{"role": "user", "content": 5}]}, "messages.0.content", "content is 5"),
        ({"stop": list("abcde")}, "stop", "stop has 5 entries; at most 4 are allowed"),
        ({"stop": ["a", 5]}, "stop.1", "valid string"),
        ({"top_p": 2}, "top_p", "top_p is 2: Input should be less than or equal to 1"),
    ],
)
def test_a_wrong_value_is_named_by_its_place_in_the_body(changes: dict[str, Any], param: str, message: str) -> None:
    with pytest.raises(ValidationError) as found:
        ChatBody.model_validate({"model": "tiny", "messages": HELLO, **changes})
    error = from_validation(found.value.errors())
    assert error.param == param and message in error.message
