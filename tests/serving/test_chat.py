"""`/v1/chat/completions` with the official client."""

from __future__ import annotations

import asyncio
import base64
import json
import math
from typing import Any

import pytest
from openai import BadRequestError, NotFoundError, OpenAI
from PIL import Image

from janusflow.serving.api.chat import read_conversation
from janusflow.serving.api.chat_answer import Answer
from janusflow.serving.api.chat_body import ChatBody
from janusflow.serving.api.images import read_edit
from janusflow.serving.api.server import READERS, Server
from janusflow.serving.fetch import Fetcher
from janusflow.serving.jobs import Token, TokenLogprob
from janusflow.serving.settings import Limits
from tests.serving.conftest import Served
from tests.serving.test_images import png

QUESTION = "what color is the circle?"
PICTURE = Image.new("RGB", (30, 20), "red")
TALK = [{"role": "user", "content": "describe the picture."}]


def data_uri(picture: Image.Image) -> str:
    return f"data:image/png;base64,{base64.b64encode(png(picture)).decode()}"


def shown(*parts: str | Image.Image) -> list[dict[str, Any]]:
    """A message of a user with pictures in it."""
    return [
        {"type": "text", "text": part}
        if isinstance(part, str)
        else {"type": "image_url", "image_url": {"url": data_uri(part)}}
        for part in parts
    ]


@pytest.fixture(scope="module")
def scene(served: Served) -> Image.Image:
    return served.model.generate("a red circle above a blue square", seed=0, num_inference_steps=8, progress=False)[0]


def test_a_greedy_answer_about_a_picture_is_that_of_ask(served: Served, client: OpenAI, scene: Image.Image) -> None:
    messages: Any = [{"role": "user", "content": shown(scene, QUESTION)}]
    found = client.chat.completions.create(model="tiny", messages=messages)
    assert found.choices[0].message.content == served.model.ask(QUESTION, scene, max_new_tokens=64)
    assert found.choices[0].finish_reason == "stop"
    assert found.usage is not None and found.usage.prompt_tokens > served.model.network.num_understanding_tokens


def test_turns_with_several_pictures_are_answered_as_by_chat(
    served: Served, client: OpenAI, scene: Image.Image
) -> None:
    other = scene.transpose(Image.Transpose.FLIP_TOP_BOTTOM)
    first = client.chat.completions.create(
        model="tiny",
        messages=[{"role": "user", "content": shown(scene, other, "how many pictures?")}],  # type: ignore[misc, list-item]
    )
    said = first.choices[0].message
    messages: Any = [
        {"role": "user", "content": shown(scene, other, "how many pictures?")},
        said,  # as the client sends it back
        {"role": "user", "content": QUESTION},
    ]
    found = client.chat.completions.create(model="tiny", messages=messages)
    tag = served.model.processor.text.image_tag
    talk = [
        {"role": "user", "content": f"{tag}\n{tag}\nhow many pictures?", "images": [scene, other]},
        {"role": "assistant", "content": said.content},
        {"role": "user", "content": QUESTION},
    ]
    assert found.choices[0].message.content == served.model.chat(talk, max_new_tokens=64)


def test_a_stream_joined_is_the_whole_answer_and_ends_with_its_usage(client: OpenAI) -> None:
    whole = client.chat.completions.create(model="tiny", messages=TALK, max_completion_tokens=12)  # type: ignore[arg-type]
    chunks = list(
        client.chat.completions.create(
            model="tiny",
            messages=TALK,  # type: ignore[arg-type]
            max_completion_tokens=12,
            stream=True,
            stream_options={"include_usage": True},
        )
    )
    assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks[:-1]) == whole.choices[0].message.content
    assert chunks[-2].choices[0].finish_reason == whole.choices[0].finish_reason
    assert chunks[-1].choices == [] and chunks[-1].usage == whole.usage


def test_sampled_answers_are_those_of_their_seeds(served: Served, client: OpenAI) -> None:
    found = client.chat.completions.create(
        model="tiny",
        messages=TALK,
        n=2,
        seed=7,
        temperature=1.5,
        top_p=0.95,
        max_completion_tokens=8,  # type: ignore[arg-type]
    )
    expected = [
        served.model.chat(TALK, max_new_tokens=8, do_sample=True, temperature=1.5, top_p=0.95, seed=seed)
        for seed in (7, 8)
    ]
    assert [choice.message.content for choice in found.choices] == expected
    assert expected[0] != expected[1]


def test_a_stop_string_ends_the_answer_and_is_not_part_of_it(client: OpenAI) -> None:
    whole = client.chat.completions.create(model="tiny", messages=TALK, max_completion_tokens=20)  # type: ignore[arg-type]
    text = whole.choices[0].message.content or ""
    stop = text[5:9]  # not at a token's border
    found = client.chat.completions.create(model="tiny", messages=TALK, max_completion_tokens=20, stop=stop)  # type: ignore[arg-type]
    assert found.choices[0].message.content == text[: text.index(stop)]
    assert found.choices[0].finish_reason == "stop"
    chunks = client.chat.completions.create(
        model="tiny",
        messages=TALK,
        max_completion_tokens=20,
        stop=[stop, "\n\n"],
        stream=True,  # type: ignore[arg-type]
    )
    assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks) == text[: text.index(stop)]


def test_logprobs_of_a_greedy_answer_are_the_highest(client: OpenAI) -> None:
    found = client.chat.completions.create(
        model="tiny",
        messages=TALK,
        logprobs=True,
        top_logprobs=3,
        max_completion_tokens=5,  # type: ignore[arg-type]
    )
    assert found.choices[0].logprobs is not None
    entries = found.choices[0].logprobs.content or []
    assert len(entries) == 5
    for entry in entries:
        assert entry.top_logprobs[0].token == entry.token
        assert math.isclose(entry.top_logprobs[0].logprob, entry.logprob)
        assert sum(math.exp(one.logprob) for one in entry.top_logprobs) <= 1 + 1e-6
        assert bytes(entry.bytes or []).decode() == entry.token


def test_a_token_that_is_part_of_a_character_has_its_bytes() -> None:
    answer = Answer()
    answer.add(Token("", TokenLogprob("鹅".encode()[:2], -0.5), [TokenLogprob(b"a", -1.0)]))
    (entry,) = answer.logprobs
    assert (entry["token"], entry["bytes"]) == ("\ufffd", list("鹅".encode()[:2]))
    assert entry["top_logprobs"] == [{"token": "a", "logprob": -1.0, "bytes": [97]}]


@pytest.mark.parametrize(
    ("change", "param", "reason"),
    [
        ({"tools": []}, "tools", "not a parameter"),
        ({"temprature": 1}, "temprature", "not a parameter"),
        ({"n": 5}, "n", "at most 4"),
        ({"max_completion_tokens": 65}, "max_completion_tokens", "at most 64"),
        ({"temperature": 2.5}, "temperature", "less than or equal to 2"),
        ({"top_logprobs": 2}, "top_logprobs", "logprobs"),
        ({"seed": "7"}, "seed", "integer"),
        ({"messages": []}, "messages", "at least 1"),
        ({"messages": [{"role": "tool", "content": "x"}]}, "messages.0.role", "user"),
        ({"messages": [{"role": "assistant", "content": "x"}]}, None, "take turns"),
        ({"messages": [{"role": "user", "content": "\ud800"}]}, None, "UTF-8"),
        ({"messages": [{"role": "user", "content": "a " * 1200}]}, "messages", "context"),
    ],
)
def test_what_is_not_supported_is_refused_by_name(
    served: Served, change: dict[str, Any], param: str | None, reason: str
) -> None:
    body = {"model": "tiny", "messages": TALK, **change}
    with served.http() as http:
        found = http.post(
            "/v1/chat/completions", content=json.dumps(body), headers={"Content-Type": "application/json"}
        )
    assert found.status_code == 400
    error = found.json()["error"]
    assert error["type"] == "invalid_request_error"
    assert reason in error["message"]
    assert param is None or error["param"] == param


@pytest.mark.parametrize(
    "url",
    [
        "/etc/passwd",
        "file:///etc/passwd",
        "data:image/png;base64,%%%",
        "data:image/png;base64,aGVsbG8=",
        data_uri(Image.new("RGB", (200, 60))),
        "ftp://example.org/a.png",
    ],
)
def test_pictures_that_are_no_small_data_are_refused(client: OpenAI, url: str) -> None:
    message: Any = {"role": "user", "content": [{"type": "image_url", "image_url": {"url": url}}]}
    with pytest.raises(BadRequestError, match="image_url|messages"):
        client.chat.completions.create(model="tiny", messages=[message])


@pytest.mark.parametrize("kind", ["conversations", "edits"])
def test_pictures_of_few_requests_are_read_at_the_same_time(
    served: Served, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    messages = [{"role": "user", "content": shown(PICTURE, QUESTION)}]
    body = ChatBody.model_validate({"model": "tiny", "messages": messages})
    server = Server({"tiny": served.model}, served.scheduler, Limits(), Fetcher(Limits()))
    given, settings = {"image": png(PICTURE)}, served.model.resolve("a star", {})
    reading, most = 0, 0

    async def counted(function: Any, *given: Any) -> Any:
        nonlocal reading, most
        reading += 1
        most = max(most, reading)
        await asyncio.sleep(0)  # the other requests continue
        reading -= 1
        return function(*given)

    async def read() -> None:
        if kind == "edits":
            await asyncio.gather(*(read_edit(server, given, settings) for _ in range(5)))
        else:
            await asyncio.gather(*(read_conversation(server, served.model, body) for _ in range(5)))

    monkeypatch.setattr(asyncio, "to_thread", counted)
    asyncio.run(read())
    assert most == READERS


def test_an_error_has_the_official_clients_type_and_an_id(client: OpenAI) -> None:
    with pytest.raises(NotFoundError) as refused:
        client.chat.completions.create(model="large", messages=TALK)  # type: ignore[arg-type]
    assert refused.value.code == "model_not_found"
    assert (refused.value.request_id or "").startswith("req_")
