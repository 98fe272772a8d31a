"""One quick look whether the hub can be reached, before anything is fetched from it.

Without a network the libraries try again for half a minute and print every try. Here one request finds out; what is in
the cache is then opened from there at once, and anything else fails at once. A connection that works, but badly, keeps
the libraries' retries.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from huggingface_hub import constants
from huggingface_hub.utils import get_session

SECONDS = 5.0  # for a connection
CONNECTED = ("ReadTimeout", "ReadError", "WriteTimeout", "WriteError", "RemoteProtocolError", "PoolTimeout")


def hub_is_reachable() -> bool:
    """Whether the hub (`HF_ENDPOINT`) answers at all; False with HF_HUB_OFFLINE=1, without a request."""
    if constants.HF_HUB_OFFLINE:
        return False
    try:
        get_session().head(constants.ENDPOINT, timeout=SECONDS)
    except Exception as error:  # by name: versions of huggingface_hub differ in the HTTP library they use
        return type(error).__name__ in CONNECTED
    return True


@contextmanager
def cached_if_unreachable(path_or_id: str | Path) -> Iterator[str]:
    """Around a call that opens a folder or hub id: only the cache is read while the hub cannot be reached.

    Other threads fetch nothing in the meantime either; they could not.

    Args:
        path_or_id: what is opened; for a folder that is here the hub is not looked for.

    Yields:
        Why nothing can be fetched, as the end of a sentence; "" if it can.
    """
    if constants.HF_HUB_OFFLINE:
        yield "HF_HUB_OFFLINE is set"
    elif Path(os.path.expanduser(path_or_id)).exists() or hub_is_reachable():
        yield ""
    else:
        constants.HF_HUB_OFFLINE = True  # huggingface_hub reads it before every request, and all others go through it
        try:
            yield "the hub cannot be reached"
        finally:
            constants.HF_HUB_OFFLINE = False


def first_line(error: BaseException) -> str:
    """The first line of an error's message, or its kind where there is none."""
    return next(iter(str(error).strip().splitlines()), type(error).__name__)
