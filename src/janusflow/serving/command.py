"""Start a server from the options of `janusflow serve`. Settings are checked before weights are loaded."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, TypeVar

from pydantic import ValidationError

from janusflow.arguments import quoted, suggestion
from janusflow.pipelines.base import Pipeline
from janusflow.serving.app import create_app
from janusflow.serving.keys import ApiKeys
from janusflow.serving.models import read_adapters, with_adapters
from janusflow.serving.policy import PolicySettings
from janusflow.serving.runner import PipelineRunner, give_cores, keep_loaded
from janusflow.serving.scheduler import QueueSettings, Scheduler
from janusflow.serving.server import check_host, check_port, run
from janusflow.serving.settings import Limits

T = TypeVar("T")


@dataclass(frozen=True)
class ServeOptions:
    """Options from the command line.

    Attributes:
        model: "tiny", a folder or a hub id.
        name: name that clients use; None is the last part of `model`, see `served_name`.
        adapters: adapters as NAME=FOLDER.
        host, port: address and port to listen on.
        api_key_file: file of API keys.
        queue: fields of `QueueSettings`.
        policy: fields of `PolicySettings`.
        limits: fields of `Limits` as NAME=NUMBER.
        grace: seconds that accepted requests get when the server stops.
        page: whether `/` shows the page.
        opening: further arguments for `Pipeline.from_pretrained`.
        cluster: fields of `janusflow.serving.distributed.RayOptions`; None runs one process.
    """

    model: str
    name: str | None
    adapters: Sequence[str]
    host: str
    port: int
    api_key_file: Path | None
    queue: Mapping[str, int]
    policy: Mapping[str, float]
    limits: Sequence[str]
    grace: float
    page: bool
    opening: Mapping[str, Any]
    cluster: Mapping[str, Any] | None = None

    @property
    def served_name(self) -> str:
        """`name`, or else the last part of `model`; for `.` and `..`, the name of that folder."""
        if self.name:
            return self.name
        return Path(os.path.abspath(os.path.expanduser(self.model))).name  # noqa: PTH100 (resolve would follow links)


def run_command(options: ServeOptions) -> None:
    """Serve until SIGTERM or SIGINT.

    Raises:
        ValueError: if an option is not allowed; the message is one sentence.
    """
    keys = ApiKeys.read(options.api_key_file)
    check_host(options.host, keys)
    check_port(options.host, options.port)
    queue, policy = checked_settings(QueueSettings, options.queue), checked_settings(PolicySettings, options.policy)
    limits = checked_settings(Limits, read_limits(options.limits))
    if limits.max_n > queue.max_queue:
        raise ValueError(f"max_queue is {queue.max_queue}, below the limit max_n of {limits.max_n}; raise it")
    adapters = read_adapters(options.adapters)
    if options.cluster is not None:
        _run_on_ray(options, adapters, keys, queue, policy, limits)
        return
    for name, folder in adapters.items():
        if not folder.is_dir():
            raise ValueError(f"adapter {name} is {quoted(str(folder))}, which is not a folder")
    scheduler = Scheduler(PipelineRunner(), queue, policy)
    scheduler.start()
    give_cores(scheduler.call)

    def open_models() -> dict[str, Pipeline]:
        model = Pipeline.from_pretrained(options.model, **options.opening)
        model.identity()  # opens the VAE now, not with the first request
        return with_adapters(options.served_name, model, adapters)

    models = scheduler.call(open_models)
    app = create_app(models, scheduler, limits=limits, keys=keys, page=options.page)
    keep_loaded()
    run(app, scheduler, limits, host=options.host, port=options.port, grace=options.grace)


def _run_on_ray(
    options: ServeOptions,
    adapters: Mapping[str, Path],
    keys: ApiKeys | None,
    queue: QueueSettings,
    policy: PolicySettings,
    limits: Limits,
) -> None:
    from janusflow.serving.distributed import RayOptions, run_distributed  # needs the extra [ray]
    from janusflow.serving.replica import ReplicaOptions

    assert options.cluster is not None
    replica = ReplicaOptions(
        options.model, options.served_name, adapters, options.opening, queue, policy, limits, options.page
    )
    cluster = RayOptions(**options.cluster)
    run_distributed(replica, cluster, keys, host=options.host, port=options.port, grace=options.grace)


def read_limits(options: Sequence[str]) -> dict[str, float | None]:
    """Parse limits such as `max_steps=50` and return them by name; the value `none` removes a limit.

    Raises:
        ValueError: if a text has another form or an unknown name.
    """
    known = [entry.name for entry in fields(Limits)]
    found: dict[str, float | None] = {}
    for option in options:
        name, _, value = option.partition("=")
        if name not in known:
            near = suggestion(name, known) or f"; choose from {', '.join(known)}"
            raise ValueError(f"limit {quoted(name)} is unknown{near}")
        if value == "none":
            found[name] = None
            continue
        try:
            number = float(value)
        except ValueError as error:
            raise ValueError(f"limit {name} is {quoted(value)}; expected a number, as in {name}=50") from error
        found[name] = int(number) if number.is_integer() else number
    return found


def checked_settings(kind: type[T], values: Mapping[str, float | None]) -> T:
    """Return settings with the given values.

    Raises:
        ValueError: for the first value that is not allowed.
    """
    try:
        return kind(**values)
    except ValidationError as error:
        first = error.errors()[0]
        raise ValueError(f"{first['loc'][0]} is {first['input']}; {first['msg'].lower()}") from error
