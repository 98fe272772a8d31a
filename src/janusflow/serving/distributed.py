"""`janusflow serve --ray`: connects to Ray, starts the replicas, and serves the front."""

from __future__ import annotations

from dataclasses import dataclass

from janusflow.cluster import connected
from janusflow.serving.front import Front
from janusflow.serving.gate import Gate
from janusflow.serving.keys import ApiKeys
from janusflow.serving.replica import ReplicaOptions, deploy
from janusflow.serving.server import run


@dataclass(frozen=True)
class RayOptions:
    """Where replicas run.

    Attributes:
        replicas: smallest number of replicas.
        max_replicas: largest number of replicas; None is `replicas`.
        address: address of a running cluster; None starts one on this machine.
        cpus, gpus: CPU cores and GPUs that each replica reserves.
    """

    replicas: int = 1
    max_replicas: int | None = None
    address: str | None = None
    cpus: float = 1.0
    gpus: float = 0.0


def run_distributed(
    options: ReplicaOptions, cluster: RayOptions, keys: ApiKeys | None, *, host: str, port: int, grace: float
) -> None:
    """Serve until SIGTERM or SIGINT.

    Args:
        options: options of the replicas.
        cluster: where the replicas run.
        keys: accepted API keys.
        host, port: address and port to listen on.
        grace: seconds that accepted requests get when the server stops.

    Raises:
        ValueError: if there is no cluster at the address, or `max_replicas` is below `replicas`.
    """
    most = cluster.replicas if cluster.max_replicas is None else cluster.max_replicas
    if most < cluster.replicas:
        raise ValueError(f"max_replicas is {most}, below the {cluster.replicas} replicas; raise it")
    with connected(cluster.address, log_to_driver=False):
        handle = deploy(options, replicas=cluster.replicas, most=most, cpus=cluster.cpus, gpus=cluster.gpus)
        front = Front(handle)
        app = Gate(front, limits=options.limits, keys=keys, metrics=front.metrics)
        run(app, front, options.limits, host=host, port=port, grace=grace)
