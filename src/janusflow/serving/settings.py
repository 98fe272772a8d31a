"""The limits of one request, which protect the process from its clients."""

from __future__ import annotations

from typing import Annotated

from annotated_types import Ge, Gt, Le
from pydantic.dataclasses import dataclass

from janusflow.data.constraints import PositiveInt

Seconds = Annotated[float, Gt(0), Le(86_400)]


@dataclass(frozen=True)
class Limits:
    """What one request may ask for.

    Attributes:
        max_body: bytes of a request, including its pictures.
        max_input_pixels: pixels of a picture that is sent or fetched.
        max_images: pictures in one conversation.
        max_output_pixels: pixels of a generated picture.
        max_prompt: characters of a prompt, or of a conversation's text.
        max_n: answers or pictures of one request.
        max_steps: `num_inference_steps`.
        max_tokens: tokens of an answer; also the limit of requests that name none.
        fetch_bytes: bytes of a fetched picture.
        fetch_seconds: seconds to fetch one picture, including redirects.
        fetch_redirects: redirects that are followed.
        head_seconds: seconds within which a request's header must arrive.
        body_seconds: seconds within which a request's body must arrive.
        write_seconds: seconds within which a client must read some of an answer that waits to be sent.
        timeout: seconds after which an unfinished request fails; a request may ask for less.
        requests_per_minute: requests per minute for each API key; None is unlimited.
    """

    max_body: PositiveInt = 20_000_000
    max_input_pixels: PositiveInt = 20_000_000
    max_images: PositiveInt = 8
    max_output_pixels: PositiveInt = 1024 * 1024
    max_prompt: PositiveInt = 20_000
    max_n: PositiveInt = 8
    max_steps: PositiveInt = 100
    max_tokens: PositiveInt = 1024
    fetch_bytes: PositiveInt = 10_000_000
    fetch_seconds: Seconds = 10.0
    fetch_redirects: Annotated[int, Ge(0)] = 3
    head_seconds: Seconds = 10.0
    body_seconds: Seconds = 30.0
    write_seconds: Seconds = 30.0
    timeout: Seconds = 600.0
    requests_per_minute: PositiveInt | None = 600
