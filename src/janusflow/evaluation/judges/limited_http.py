"""An HTTP client that limits what a server can cost: it bounds time and size of a whole reply and follows no redirects.

HTTP libraries bound each read, so a reply that arrives byte by byte never ends; they also unpack and keep all of it.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from importlib import import_module
from typing import Any, TypeVar

T = TypeVar("T")

LARGEST = 16 * 2**20  # bytes of a reply


def limited_client(kind: Callable[..., Any], seconds: float, *, largest: int = LARGEST) -> Any:
    """Return a client of httpx (or httpx2, which newer versions of openai use) with bounded replies.

    Args:
        seconds: time limit for a reply's content.
    """

    def bound(response: Any) -> None:
        library = import_module(type(response).__module__.partition(".")[0])
        packed = response.headers.get("content-encoding", "identity").strip().lower() not in ("", "identity")
        if packed:  # not requested, and may be small until it is unpacked
            raise library.DecodingError("the reply is compressed", request=response.request)
        response.stream = _bounded(library, response, time.monotonic() + seconds, largest)

    return kind(
        timeout=seconds,
        follow_redirects=False,
        headers={"Accept-Encoding": "identity"},
        event_hooks={"response": [bound]},
    )


def _bounded(library: Any, response: Any, until: float, largest: int) -> Any:
    """Return a response's stream that raises an error of the library once it takes too long or is too large."""
    inner = response.stream

    class Bounded(library.SyncByteStream):  # only known at run time
        def __iter__(self) -> Iterator[bytes]:
            size = 0
            for part in inner:
                size += len(part)
                if time.monotonic() > until:
                    raise library.ReadTimeout("the reply takes too long", request=response.request)
                if size > largest:
                    raise library.DecodingError("the reply is too large", request=response.request)
                yield part

        def close(self) -> None:
            inner.close()

    return Bounded()


def within(seconds: float, action: Callable[[], T]) -> T:
    """Return the result of an action that may block; it runs in a thread, which is abandoned if it takes longer.

    Raises:
        TimeoutError: if it takes longer.
    """
    found: list[T] = []
    failed: list[BaseException] = []

    def run() -> None:
        try:
            found.append(action())
        except BaseException as error:  # raised below, in the calling thread
            failed.append(error)

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    thread.join(seconds)
    if failed:
        raise failed[0]
    if not found:
        raise TimeoutError(f"nothing came in {seconds:g} seconds")
    return found[0]
