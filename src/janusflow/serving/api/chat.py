"""`/v1/chat/completions`: conversations of texts and pictures, answered whole or as a stream."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Coroutine, Sequence
from contextlib import nullcontext
from functools import partial
from typing import Any

from fastapi import APIRouter, Request
from fastapi.responses import JSONResponse, Response
from PIL import Image

from janusflow.engine.understanding import Decoding
from janusflow.pipelines.base import Pipeline
from janusflow.processing.processor import UnderstandingInputs
from janusflow.serving.api.chat_answer import Answer, Completion
from janusflow.serving.api.chat_body import ChatBody, ImagePart, TextPart
from janusflow.serving.api.documented import ERRORS
from janusflow.serving.api.server import Server, seed_of, server_of
from janusflow.serving.api.sse import EventStream, event
from janusflow.serving.api.waiting import Waiting
from janusflow.serving.errors import as_api_error, invalid
from janusflow.serving.input_pictures import picture_bytes, read_picture
from janusflow.serving.jobs import TextRequest

router = APIRouter(tags=["text"])
COLDEST = 0.01  # temperatures below this are greedy


@router.post("/v1/chat/completions", summary="Answer a conversation", responses=ERRORS)
async def chat_completions(body: ChatBody, http: Request) -> Response:
    """Return the assistant's next message, in OpenAI's format.

    If the last message is the assistant's, it is continued.
    """
    server, arrived = server_of(http), time.monotonic()
    name, model = server.model(body.model)
    check_limits(server, body)
    inputs = await read_conversation(server, model, body)
    try:
        requests = text_requests(server, model, inputs, body, seed_of(http, body.seed))
    except ValueError as error:
        raise as_api_error(error) from error
    waiting = Waiting(server.scheduler, http, stream=body.stream)
    waiting.submit(requests, priority=body.priority, timeout=server.timeout(body, arrived))
    completion = Completion(name, inputs.input_ids.shape[1], body)
    if body.stream:
        return EventStream(waiting, _chunks(waiting, completion, body))
    answers = [Answer() for _ in requests]
    async for number, one in waiting.events():
        answers[number].add(one)
    return JSONResponse(completion.whole(answers))


async def _chunks(waiting: Waiting, completion: Completion, body: ChatBody) -> AsyncIterator[str]:
    answers = [Answer() for _ in waiting.jobs]
    for number in range(len(answers)):
        yield event(completion.chunk(number, {"role": "assistant", "content": ""}))
    async for number, one in waiting.events():
        if (delta := answers[number].add(one)) is not None:
            yield event(completion.chunk(number, delta, answers[number], one))
    if body.stream_options is not None and body.stream_options.include_usage:
        yield event(completion.usage_chunk(answers))
    yield "data: [DONE]\n\n"


def check_limits(server: Server, body: ChatBody) -> None:
    """Refuse a body that exceeds a limit of this server, or whose parameters do not go together.

    Raises:
        ApiError: if the body is refused; names the parameter.
    """
    server.check_most("n", body.n, server.limits.max_n)
    for name in ("max_completion_tokens", "max_tokens"):
        server.check_most(name, getattr(body, name) or 0, server.limits.max_tokens)
    if body.max_tokens is not None and body.max_completion_tokens is not None:
        raise invalid("max_tokens and max_completion_tokens were given; leave out max_tokens", "max_tokens")
    if body.top_logprobs is not None and not body.logprobs:
        raise invalid("top_logprobs needs logprobs to be true", "top_logprobs")
    if body.stream_options is not None and not body.stream:
        raise invalid("stream_options needs stream to be true", "stream_options")
    if body.seed is not None and body.seed + body.n - 1 >= 2**63:
        raise invalid(f"seed is {body.seed}, and answer i gets seed + i; the largest is {2**63 - body.n}", "seed")
    contents = [message.content for message in body.messages]
    parts = [part for content in contents if not isinstance(content, str) for part in content]
    length = sum(len(content) for content in contents if isinstance(content, str))
    length += sum(len(part.text) for part in parts if isinstance(part, TextPart))
    if length > server.limits.max_prompt:
        raise invalid(f"messages hold {length} characters; this server allows {server.limits.max_prompt}", "messages")


async def read_conversation(server: Server, model: Pipeline, body: ChatBody) -> UnderstandingInputs:
    """Read the pictures of a conversation and encode it. Few requests do so at a time, because pictures are large.

    Raises:
        ApiError: if there are too many pictures, one is not allowed, or the conversation is malformed or too long.
    """
    data = await _together([picture_bytes(url, server.fetcher) for url in picture_urls(server, body)])
    async with server.reading if data else nullcontext():
        pictures = await read_pictures(server, data)
        try:
            return await asyncio.to_thread(encode, model, body, pictures)
        except ValueError as error:
            raise invalid(str(error), "messages") from error


async def _together(fetches: Sequence[Coroutine[Any, Any, bytes]]) -> list[bytes]:
    """Run fetches at the same time; if one fails, the others are cancelled."""
    tasks = [asyncio.ensure_future(fetch) for fetch in fetches]
    try:
        return await asyncio.gather(*tasks)
    finally:
        for task in tasks:
            task.cancel()


def picture_urls(server: Server, body: ChatBody) -> list[str]:
    """Return the data URIs and addresses of a conversation's pictures, in order.

    Raises:
        ApiError: if there are too many.
    """
    urls = [
        part.image_url.url
        for message in body.messages
        if not isinstance(message.content, str)
        for part in message.content
        if isinstance(part, ImagePart)
    ]
    if len(urls) > server.limits.max_images:
        raise invalid(f"messages hold {len(urls)} pictures; this server allows {server.limits.max_images}", "messages")
    return urls


async def read_pictures(server: Server, data: Sequence[bytes]) -> list[Image.Image]:
    """Return the pictures in some files.

    Raises:
        ApiError: if one is not allowed.
    """
    pictures = []
    for one in data:
        try:
            pictures.append(await asyncio.to_thread(read_picture, one, server.limits, "messages"))
        except ValueError as error:
            raise as_api_error(error) from error
    return pictures


def encode(model: Pipeline, body: ChatBody, pictures: list[Image.Image]) -> UnderstandingInputs:
    """Encode the conversation as one row.

    Raises:
        ValueError: if it is malformed, or does not fit into the model's context.
    """
    following = iter(pictures)
    messages = []
    for message in body.messages:
        parts: Any = message.content
        if not isinstance(parts, str):
            parts = [
                {"type": "image", "image": next(following)} if isinstance(part, ImagePart) else part.model_dump()
                for part in parts
            ]
        role = "system" if message.role == "developer" else message.role
        messages.append({"role": role, "content": parts})
    inputs = model.processor.encode_conversations([messages], continue_final_message=True)
    tokens, context = inputs.input_ids.shape[1], model.network.config.text_config.max_position_embeddings
    if tokens >= context:
        raise ValueError(
            f"messages have {tokens} tokens, their pictures included; fewer than {context} fit into the model's context"
        )
    return inputs


def text_requests(
    server: Server, model: Pipeline, inputs: UnderstandingInputs, body: ChatBody, first: int
) -> list[TextRequest]:
    """Return a request for each of the n answers, with seeds from `first` on.

    Raises:
        ValueError: if a value is not allowed.
    """
    warm = float(body.top_p < 1 or body.top_k > 0) if body.temperature is None else body.temperature
    most = body.max_completion_tokens or body.max_tokens or server.limits.max_tokens
    decoding = partial(Decoding, max_new_tokens=most, repetition_penalty=body.repetition_penalty)
    if warm >= COLDEST:
        decoding = partial(decoding, do_sample=True, temperature=warm, top_p=body.top_p, top_k=body.top_k)
    return [
        TextRequest(
            model,
            inputs,
            decoding(seed=first + number) if warm >= COLDEST else decoding(),
            stop=[body.stop] if isinstance(body.stop, str) else body.stop,
            top_logprobs=(body.top_logprobs or 0) if body.logprobs else None,
            presence_penalty=body.presence_penalty,
            frequency_penalty=body.frequency_penalty,
        )
        for number in range(body.n)
    ]
