"""LangChain's client, which sends and reads more than the official one alone."""

from __future__ import annotations

from typing import Any

import pytest
from langchain_core.messages import AIMessage, HumanMessage, SystemMessage
from langchain_openai import ChatOpenAI
from PIL import Image

from tests.serving.conftest import KEY, Served
from tests.serving.test_chat import QUESTION, data_uri


@pytest.fixture(scope="module")
def chat(served: Served) -> ChatOpenAI:
    settings: dict[str, Any] = {"base_url": f"{served.url}/v1", "api_key": KEY, "model": "tiny", "max_retries": 0}
    return ChatOpenAI(max_completion_tokens=12, **settings)


def test_a_conversation_is_answered_whole_and_as_a_stream(served: Served, chat: ChatOpenAI) -> None:
    talk = [SystemMessage("Be brief."), HumanMessage("hello"), AIMessage("hi"), HumanMessage("name three colors.")]
    roles = ("system", "user", "assistant", "user")
    plain = [{"role": role, "content": message.content} for role, message in zip(roles, talk, strict=True)]
    expected = served.model.chat(plain, max_new_tokens=12)
    answer = chat.invoke(talk)
    assert answer.content == expected
    assert answer.usage_metadata is not None and answer.usage_metadata["output_tokens"] > 0
    assert "".join(str(part.content) for part in chat.stream(talk)) == expected


def test_a_picture_in_a_message_is_seen(served: Served, chat: ChatOpenAI) -> None:
    shown = Image.new("RGB", (64, 64), "red")
    parts: list[Any] = [
        {"type": "image_url", "image_url": {"url": data_uri(shown)}},
        {"type": "text", "text": QUESTION},
    ]
    assert chat.invoke([HumanMessage(parts)]).content == served.model.ask(QUESTION, shown, max_new_tokens=12)
