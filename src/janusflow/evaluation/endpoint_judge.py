"""A model behind an OpenAI-compatible address: asked with patience, within a budget, its key kept secret.

It judges, and captions for `janusflow data prepare`.
"""

from __future__ import annotations

import base64
import io
import json
import os
import random
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from pathlib import Path
from typing import Any

from filelock import FileLock
from PIL import Image

from janusflow.evaluation.data import write_text
from janusflow.evaluation.protocol import NotJudgedError
from janusflow.extras import require

RETRIED = (408, 409, 425, 429)  # and all from 500 upwards
FINAL = (401, 402, 403, 404)  # the next request would fare the same
NO_MONEY = "insufficient_quota"  # the code with which OpenAI's 429 means that waiting does not help


@dataclass(frozen=True)
class EndpointOptions:
    """How an endpoint is asked.

    Attributes:
        key_variable: environment variable that holds the key; the key goes nowhere but to the endpoint.
        max_tokens: of a reply.
        timeout: seconds for one reply.
        tries: of one question.
        patience: seconds before the second try, doubled for every further one.
        longest_wait: seconds between two tries, whatever the endpoint asks for.
        max_requests: so many requests are sent at most, tries included; None for no limit.
        reasons: the model thinks before it replies: it takes `max_completion_tokens` for both, and no temperature.
        empty: an empty reply is one, and not a failure that may pass.
        max_total_tokens: no request is sent any more once replies and prompts had so many; None for no limit.
    """

    key_variable: str = "OPENAI_API_KEY"
    max_tokens: int = 1024
    timeout: float = 120.0
    tries: int = 6
    patience: float = 1.0
    longest_wait: float = 120.0
    max_requests: int | None = None
    max_total_tokens: int | None = None
    reasons: bool = False
    empty: bool = False


class EndpointJudge:
    """A model behind an OpenAI-compatible address; may be asked by several threads at once.

    Args:
        model: its name there.
        url: base address, without `/chat/completions`.
        options: how to ask.
        account: a file in which all processes that ask within one budget count together, this time and the next; None
            to count here alone.
    """

    def __init__(self, model: str, url: str, options: EndpointOptions, *, account: Path | None = None) -> None:
        require("a model behind an address", "openai")
        from openai import OpenAI

        self.name, self.model, self.url, self.options = f"{model} at {url}", model, url, options
        self._account = None if options.max_requests is None and options.max_total_tokens is None else account
        self._spent = {"requests": 0, "tokens": 0}
        self._key = os.environ.get(options.key_variable, "")
        self._closed = ""  # why nothing is asked any more
        self._lock = threading.Lock()
        self._client = OpenAI(api_key=self._key or "none", base_url=url, timeout=options.timeout, max_retries=0)

    def reply(
        self,
        prompt: str,
        images: Sequence[Image.Image] = (),
        *,
        system: str = "",
        temperature: float = 0.0,
        attempt: int = 0,
    ) -> str:
        """See `Judge`; failures that pass (429, 5xx, timeouts, broken or empty replies) are tried again."""
        content: list[dict[str, Any]] = [{"type": "image_url", "image_url": {"url": data_url(p)}} for p in images]
        content.append({"type": "text", "text": prompt})
        messages: list[dict[str, Any]] = [{"role": "system", "content": system}] if system else []
        messages.append({"role": "user", "content": content if images else prompt})
        wait, problem = 0.0, ""
        for number in range(self.options.tries):
            if number:
                time.sleep(wait)
            self._count_request()
            backoff = self.options.patience * 2**number * random.uniform(0.75, 1.0)
            try:
                return self._ask(messages, temperature)
            except _PassingError as error:
                problem = str(error)
                wait = min(max(backoff, error.wait), self.options.longest_wait)
        raise NotJudgedError(f"{self.name} gave no reply in {self.options.tries} tries; the last: {problem}")

    def _ask(self, messages: list[Any], temperature: float) -> str:
        """One request.

        Raises:
            _PassingError: if it may go better next time.
            NotJudgedError: if not.
        """
        import openai

        try:
            found = self._client.chat.completions.create(
                model=self.model, messages=messages, **self._shape(temperature)
            )
            text = _text(found.choices[0].message.content)
            used = found.usage.total_tokens if found.usage else 0
        except openai.APIStatusError as error:
            status = error.status_code
            if (status in RETRIED or status >= 500) and error.code != NO_MONEY:
                raise _PassingError(f"status {status}", _asked_wait(error.response.headers)) from None
            sentence = f"{self.name} refused the request with status {status}: {self._reason(status, error)}"
            if status in FINAL or error.code == NO_MONEY:
                self._closed = sentence
            raise NotJudgedError(sentence) from None
        except openai.APIConnectionError as error:  # timeouts among them
            raise _PassingError(
                "no answer in time" if isinstance(error, openai.APITimeoutError) else "no connection"
            ) from None
        except (openai.OpenAIError, ValueError, AttributeError, TypeError, IndexError) as error:
            raise _PassingError(f"what came is no chat completion ({type(error).__name__})") from None
        with self._spending() as spent:
            spent["tokens"] += int(used or 0)
        if self.options.empty and text in ("", None):
            return ""
        if not isinstance(text, str) or not text.strip():
            raise _PassingError("an empty reply")
        return text

    def _count_request(self) -> None:
        """Takes one request from the budget, if nothing speaks against asking."""
        options = self.options
        with self._spending() as spent:
            if not self._closed and options.max_requests is not None and spent["requests"] >= options.max_requests:
                self._closed = f"the budget of {options.max_requests} requests to {self.name} is used up"
            if (
                not self._closed
                and options.max_total_tokens is not None
                and spent["tokens"] >= options.max_total_tokens
            ):
                self._closed = f"the budget of {options.max_total_tokens} tokens for {self.name} is used up"
            if self._closed:
                raise NotJudgedError(self._closed)
            spent["requests"] += 1

    def _shape(self, temperature: float) -> dict[str, Any]:
        if self.options.reasons:
            return {"max_completion_tokens": self.options.max_tokens}
        return {"temperature": temperature, "max_tokens": self.options.max_tokens}

    @contextmanager
    def _spending(self) -> Iterator[dict[str, int]]:
        """What was sent and used so far, to read and to raise, by one thread of one process at a time."""
        if self._account is None:
            with self._lock:
                yield self._spent
            return
        self._account.parent.mkdir(parents=True, exist_ok=True)
        with self._lock, FileLock(self._account.with_suffix(".lock")):
            with suppress(OSError, ValueError):  # nothing was counted yet
                self._spent.update(json.loads(self._account.read_text(encoding="utf-8")))
            try:
                yield self._spent
            finally:
                write_text(self._account, json.dumps(self._spent) + "\n")

    def _reason(self, status: int, error: Any) -> str:
        """Why a request was refused, in one line without the key."""
        if status in (401, 403):
            return f"the key in {self.options.key_variable} is {'not accepted' if self._key else 'missing'}"
        said = " ".join(str(getattr(error, "message", error)).split())[:200]
        return said.replace(self._key, "***") if self._key else said


def data_url(picture: Image.Image) -> str:
    """A picture as a `data:` address."""
    buffer = io.BytesIO()
    picture.save(buffer, format="PNG")
    return "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode()


def _text(content: Any) -> Any:
    """A reply's words; some endpoints give them as a list of parts."""
    if not isinstance(content, list):
        return content
    return "".join(str(part["text"]) for part in content if isinstance(part, dict) and part.get("type") == "text")


class _PassingError(Exception):
    """A failure that may pass; `wait` is how many seconds the endpoint asks to wait."""

    def __init__(self, problem: str, wait: float = 0.0) -> None:
        super().__init__(problem)
        self.wait = wait


def _asked_wait(headers: Mapping[str, str]) -> float:
    """Seconds of a Retry-After, which is a number or a date; 0 without one."""
    asked = headers.get("retry-after", "")
    try:
        return max(0.0, float(asked))
    except ValueError:
        pass
    try:
        return max(0.0, parsedate_to_datetime(asked).timestamp() - time.time())
    except ValueError:
        return 0.0
