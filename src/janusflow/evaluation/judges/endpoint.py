"""A model behind an OpenAI-compatible endpoint, with retries, a budget, and a key that stays secret.

It serves as a judge, and writes captions for `janusflow data prepare`.
"""

from __future__ import annotations

import base64
import io
import json
import os
import random
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from email.utils import parsedate_to_datetime
from pathlib import Path
from typing import Annotated, Any, NoReturn

from annotated_types import Interval
from PIL import Image

from janusflow.arguments import quoted
from janusflow.evaluation.judges.judge import Judge, NotJudgedError, Query
from janusflow.evaluation.judges.limited_http import limited_client, within
from janusflow.extras import require
from janusflow.files import checked, loads, locked, read_json, write_text

RETRIED = (408, 409, 425, 429)  # and 500 and above
FINAL = (401, 402, 403, 404)  # the next request would fail as well
REDIRECTS = range(300, 400)  # refused: each is a request that no budget counts, and may send the key elsewhere
MOST_TOKENS = 10**9  # in one reply and its prompt; larger numbers are rejected
SHORTEST_SECRET = 8  # characters of a key; shorter ones ("none", "EMPTY") are placeholders, and occur in replies
ACCOUNT_PATIENCE = 60.0  # seconds to wait for another process that uses the account
NO_MONEY = "insufficient_quota"  # code of an OpenAI 429 for which waiting does not help


@dataclass(frozen=True)
class EndpointOptions:
    """Options of an endpoint.

    Attributes:
        key_variable: environment variable that contains the key; the key is only sent to the endpoint.
        max_tokens: maximum number of tokens of a reply.
        timeout: seconds for one reply, however it arrives.
        tries: maximum number of tries per question.
        patience: seconds before the second try, doubled for each further one.
        longest_wait: maximum seconds between two tries, whatever the endpoint asks for.
        max_requests: maximum number of requests, including retries; None for no limit.
        reasons: whether the model thinks before it replies; it then takes `max_completion_tokens` for both, and no
            temperature.
        empty: whether to accept an empty reply; otherwise it is a failure, and the question is asked again.
        max_total_tokens: tokens of replies and prompts after which no request is sent; None for no limit.
    """

    key_variable: str = "OPENAI_API_KEY"
    max_tokens: Annotated[int, Interval(ge=1)] = 1024
    timeout: Annotated[float, Interval(gt=0, le=86_400)] = 120.0
    tries: Annotated[int, Interval(ge=1, le=100)] = 6
    patience: Annotated[float, Interval(ge=0, le=86_400)] = 1.0
    longest_wait: Annotated[float, Interval(ge=0, le=86_400)] = 120.0
    max_requests: Annotated[int, Interval(ge=0)] | None = None
    max_total_tokens: Annotated[int, Interval(ge=0)] | None = None
    reasons: bool = False
    empty: bool = False


@dataclass
class Spent:
    """Requests and tokens that an account counts."""

    requests: Annotated[int, Interval(ge=0)]
    tokens: Annotated[int, Interval(ge=0)]


class EndpointJudge(Judge):
    """A model behind an OpenAI-compatible endpoint; several threads may ask it at once.

    Args:
        url: base URL, without `/chat/completions`.
        account: file in which all processes with a common budget count, in this run and later ones; None to count only
            in this object.

    Raises:
        ValueError: if the account is damaged: what was spent is then unknown, and the budget does not restart.
    """

    def __init__(self, model: str, url: str, options: EndpointOptions, *, account: Path | None = None) -> None:
        require("a model behind an address", "openai")
        import openai

        self.name, self.model, self.url, self.options = f"{model} at {url}", model, url, options
        self._account = None if options.max_requests is None and options.max_total_tokens is None else account
        self._spent = Spent(0, 0)
        self._key = os.environ.get(options.key_variable, "")
        self._closed = ""  # why no more requests are sent
        self._lock, self._stopped = threading.Lock(), threading.Event()
        client = limited_client(openai.DefaultHttpxClient, options.timeout)
        self._client = openai.OpenAI(
            api_key=self._key or "none", base_url=url, timeout=options.timeout, max_retries=0, http_client=client
        )
        if self._account is not None:
            self._read_account(self._account)

    def answer(self, query: Query) -> str:
        """See `Judge`; temporary failures (429, 5xx, timeouts, broken or empty replies) are retried."""
        content: list[dict[str, Any]] = [{"type": "image_url", "image_url": {"url": data_url(p)}} for p in query.images]
        content.append({"type": "text", "text": query.prompt})
        messages: list[dict[str, Any]] = [{"role": "system", "content": query.system}] if query.system else []
        messages.append({"role": "user", "content": content if query.images else query.prompt})
        wait, problem = 0.0, ""
        for number in range(self.options.tries):
            if number:
                self._wait(wait)
            self._count_request()
            backoff = self.options.patience * 2**number * random.uniform(0.75, 1.0)
            try:
                return self._ask(messages, query.temperature)
            except _PassingError as error:
                problem = str(error)
                wait = min(max(backoff, error.wait), self.options.longest_wait)
        raise NotJudgedError(f"{self.name} gave no reply in {self.options.tries} tries; the last: {problem}")

    def stop(self) -> None:
        """See `Judge`."""
        self._stopped.set()

    def _wait(self, seconds: float) -> None:
        if self._stopped.wait(seconds):
            raise NotJudgedError("the run was stopped")

    def _ask(self, messages: list[Any], temperature: float) -> str:
        """Send one request."""
        import openai

        ask = self._client.chat.completions.with_raw_response.create
        try:
            raw = within(
                self.options.timeout,
                lambda: ask(model=self.model, messages=messages, **self._shape(temperature)),
            )
            text, used = _read(raw.content)
        except TimeoutError:
            raise _PassingError("no answer in time") from None
        except openai.APIStatusError as error:
            self._refuse(error)
        except openai.APIConnectionError as error:  # includes timeouts
            raise _PassingError(
                "no answer in time" if isinstance(error, openai.APITimeoutError) else "no connection"
            ) from None
        except (openai.OpenAIError, ValueError, RecursionError) as error:
            raise _PassingError(f"the reply is not a chat completion ({type(error).__name__})") from None
        with self._spending() as spent:
            spent.tokens += used
        if not text.strip():
            if self.options.empty and not text:
                return ""
            raise _PassingError("an empty reply")
        return self._without_key(text)

    def _refuse(self, error: Any) -> NoReturn:
        """Raise the error for a reply with an error status; see `_ask`."""
        status = error.status_code
        if (status in RETRIED or status >= 500) and error.code != NO_MONEY:
            raise _PassingError(f"status {status}", _asked_wait(error.response.headers)) from None
        if status in REDIRECTS:
            place = self._without_key(str(error.response.headers.get("location", "")))
            self._closed = f"{self.name} redirects to {quoted(place)}, which is not followed; give that address"
            raise NotJudgedError(self._closed) from None
        sentence = f"{self.name} refused the request with status {status}: {self._reason(status, error)}"
        if status in FINAL or error.code == NO_MONEY:
            self._closed = sentence
        raise NotJudgedError(sentence) from None

    def _count_request(self) -> None:
        """Take one request from the budget."""
        options = self.options
        with self._spending() as spent:
            if not self._closed and options.max_requests is not None and spent.requests >= options.max_requests:
                self._closed = f"the budget of {options.max_requests} requests to {self.name} is used up"
            if not self._closed and options.max_total_tokens is not None and spent.tokens >= options.max_total_tokens:
                self._closed = f"the budget of {options.max_total_tokens} tokens for {self.name} is used up"
            if self._closed:
                raise NotJudgedError(self._closed)
            spent.requests += 1

    def _shape(self, temperature: float) -> dict[str, Any]:
        if self.options.reasons:
            return {"max_completion_tokens": self.options.max_tokens}
        return {"temperature": temperature, "max_tokens": self.options.max_tokens}

    @contextmanager
    def _spending(self) -> Iterator[Spent]:
        """Yield what was spent so far, to read and to increase, to one thread of one process at a time."""
        if self._account is None:
            with self._lock:
                yield self._spent
            return
        self._account.parent.mkdir(parents=True, exist_ok=True)  # for the lock
        busy = f"another process is using {self._account}; end it and try again"
        try:
            with self._lock, locked(self._account.with_suffix(".lock"), busy, patience=ACCOUNT_PATIENCE):
                spent = self._read_account(self._account)
                try:
                    yield spent
                finally:
                    write_text(self._account, json.dumps(asdict(spent)) + "\n")
        except NotJudgedError:
            raise
        except ValueError as error:  # damaged since it was opened
            self._closed = str(error)
            raise NotJudgedError(self._closed) from None

    def _read_account(self, account: Path) -> Spent:
        """Return what the account counts; zero if it does not exist yet."""
        try:
            return checked(Spent, read_json(account), account)
        except FileNotFoundError:
            return Spent(0, 0)
        except (OSError, ValueError) as error:
            raise ValueError(
                f"{error}; it counts the requests to {self.name}: write "
                '{"requests": N, "tokens": N} into it, or delete it to restart the budget'
            ) from error

    def _reason(self, status: int, error: Any) -> str:
        """Return why a request was refused, in one line without the key."""
        if status in (401, 403):
            return f"the key in {self.options.key_variable} is {'not accepted' if self._key else 'missing'}"
        return self._without_key(" ".join(str(getattr(error, "message", error)).split()))[:200]

    def _without_key(self, text: str) -> str:
        """Replace the key in a text that may repeat what was sent."""
        return text.replace(self._key, "***") if len(self._key) >= SHORTEST_SECRET else text


def data_url(picture: Image.Image) -> str:
    """Return a picture as a `data:` URL."""
    buffer = io.BytesIO()
    picture.save(buffer, format="PNG")
    return "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode()


def _read(content: bytes) -> tuple[str, int]:
    """Return the text of a reply ("" for none), and the tokens of reply and prompt (0 if it does not report them)."""
    try:
        found = loads(content)
        said = found["choices"][0]["message"].get("content")
        usage = found.get("usage") or {}
        used = usage.get("total_tokens") or 0
        if isinstance(said, list):  # some endpoints return it in parts
            texts = [part["text"] for part in said if part["type"] == "text"]
            if not all(isinstance(text, str) for text in texts):
                raise ValueError("a part is not text")
            said = "".join(texts)
    except (AttributeError, IndexError, KeyError, TypeError) as error:
        raise ValueError("it has another form") from error
    if not isinstance(said, (str, type(None))):
        raise ValueError("its content is not text")
    if type(used) is not int or not 0 <= used <= MOST_TOKENS:
        raise ValueError("its usage is not a number of tokens")
    return said or "", used


class _PassingError(Exception):
    """A temporary failure; the endpoint asks to wait `wait` seconds."""

    def __init__(self, problem: str, wait: float = 0.0) -> None:
        super().__init__(problem)
        self.wait = wait


def _asked_wait(headers: Mapping[str, str]) -> float:
    """Return the seconds of a Retry-After header, which is a number or a date; 0 without one."""
    asked = headers.get("retry-after", "")
    try:
        return max(0.0, float(asked))
    except ValueError:
        pass
    try:
        return max(0.0, parsedate_to_datetime(asked).timestamp() - time.time())
    except (ValueError, TypeError, IndexError, OverflowError, OSError):  # raised for malformed dates
        return 0.0
