"""The answers of `/v1/chat/completions`, whole and in chunks."""

from __future__ import annotations

import secrets
import time
from collections.abc import Sequence
from typing import Any

from janusflow.serving.api.chat_body import ChatBody
from janusflow.serving.jobs import Event, TextDone, Token, TokenLogprob

LEAST = -9999.0  # what OpenAI reports for very unlikely tokens


class Answer:
    """One of the n answers, as it is generated.

    Attributes:
        text: text so far.
        logprobs: log probabilities of its tokens, in OpenAI's format.
        reason: why it ended, or None.
        tokens: number of its tokens.
    """

    def __init__(self) -> None:
        self.text, self.logprobs, self.tokens = "", list[dict[str, Any]](), 0
        self.reason: str | None = None

    def add(self, event: Event) -> dict[str, Any] | None:
        """Add an event; return what its chunk contains, or None if it needs no chunk."""
        assert isinstance(event, (Token, TextDone))
        self.text += event.text
        if isinstance(event, TextDone):
            self.reason, self.tokens = event.reason, event.tokens
        elif event.logprob is not None:
            self.logprobs.append(_entry(event))
        elif not event.text:
            return None
        return {"content": event.text} if event.text or isinstance(event, Token) else {}


def _entry(event: Token) -> dict[str, Any]:
    assert event.logprob is not None
    return {**_token(event.logprob), "top_logprobs": [_token(one) for one in event.alternatives]}


def _token(one: TokenLogprob) -> dict[str, Any]:
    text = one.data.decode("utf-8", "replace")
    return {"token": text, "logprob": max(LEAST, one.logprob), "bytes": list(one.data)}


class Completion:
    """Response with all answers.

    Args:
        model: name of the model.
        prompt_tokens: tokens of the conversation, including its pictures.
        body: body of the request.
    """

    def __init__(self, model: str, prompt_tokens: int, body: ChatBody) -> None:
        self.prompt_tokens, self.body = prompt_tokens, body
        self.usage_follows = body.stream_options is not None and body.stream_options.include_usage
        self.head = {"id": f"chatcmpl-{secrets.token_hex(12)}", "created": int(time.time()), "model": model}

    def whole(self, answers: Sequence[Answer]) -> dict[str, Any]:
        """Return the response with all answers."""
        choices = [
            {
                "index": number,
                "message": {"role": "assistant", "content": answer.text, "refusal": None},
                "logprobs": {"content": answer.logprobs, "refusal": None} if self.body.logprobs else None,
                "finish_reason": answer.reason,
            }
            for number, answer in enumerate(answers)
        ]
        return {**self.head, "object": "chat.completion", "choices": choices, "usage": self.usage(answers)}

    def chunk(
        self, number: int, delta: dict[str, Any], answer: Answer | None = None, event: Event | None = None
    ) -> dict[str, Any]:
        """Return a part of an answer.

        Args:
            number: number of the answer.
            delta: what the part adds.
            answer: the answer including this part; None before the first part.
            event: event that the part came with.
        """
        entries = [answer.logprobs[-1]] if answer and isinstance(event, Token) and event.logprob else None
        choice = {
            "index": number,
            "delta": delta,
            "logprobs": entries and {"content": entries, "refusal": None},
            "finish_reason": answer.reason if answer else None,
        }
        usage = {"usage": None} if self.usage_follows else {}
        return {**self.head, "object": "chat.completion.chunk", "choices": [choice], **usage}

    def usage_chunk(self, answers: Sequence[Answer]) -> dict[str, Any]:
        """Return the last chunk of a stream, if it was requested."""
        return {**self.head, "object": "chat.completion.chunk", "choices": [], "usage": self.usage(answers)}

    def usage(self, answers: Sequence[Answer]) -> dict[str, int]:
        """Return the number of tokens."""
        made = sum(answer.tokens for answer in answers)
        return {
            "prompt_tokens": self.prompt_tokens,
            "completion_tokens": made,
            "total_tokens": self.prompt_tokens + made,
        }
