"""A connection to Ray, for `janusflow serve --ray` and `janusflow ablate --ray`."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from urllib.parse import urlsplit

import ray

PATIENCE = 10.0  # seconds to wait for an answer: Ray itself keeps trying for minutes, and then ends the process


@contextmanager
def connected(address: str | None, *, log_to_driver: bool = True) -> Iterator[None]:
    """Stay connected to a cluster while the body runs.

    Args:
        address: HOST:PORT of a running cluster, or "auto"; None starts one on this machine.
        log_to_driver: whether to print what the workers print.

    Raises:
        ValueError: if no cluster answers there.
    """
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    try:
        if address is not None:
            _reach(address)
        ray.init(address=address, include_dashboard=False, log_to_driver=log_to_driver)
    except (OSError, ValueError) as error:  # a ConnectionError is an OSError
        if address is None:
            raise
        raise ValueError(f"ray_address is {address}, where no cluster answers ({error}); start one there") from error
    try:
        yield
    finally:
        ray.shutdown()


def _reach(address: str) -> None:
    """Connect and disconnect: OSError if nothing listens at the address, ValueError if its port is not a number."""
    place = urlsplit(address if "//" in address else f"//{address}")
    if place.hostname and place.port:
        socket.create_connection((place.hostname, place.port), PATIENCE).close()
