"""Metrics for Prometheus."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector, generate_latest

from janusflow.serving.jobs import CancelledError, DeadlineError, Event, Failed, Kind

SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300)
SIZES = (1, 2, 4, 8, 16, 32, 64)


class Metrics:
    """All metrics of one server, in a registry of its own."""

    def __init__(self) -> None:
        own = self.registry = CollectorRegistry()
        ProcessCollector(registry=own)  # process_resident_memory_bytes and others
        self.queue = Gauge("janusflow_queue_length", "Jobs that wait to be started", ["kind"], registry=own)
        self.running = Gauge("janusflow_running_jobs", "Jobs in work", ["kind"], registry=own)
        self.wait = Histogram(
            "janusflow_wait_seconds", "From submission to start", ["kind"], buckets=SECONDS, registry=own
        )
        self.run = Histogram("janusflow_run_seconds", "From start to result", ["kind"], buckets=SECONDS, registry=own)
        self.batch = Histogram("janusflow_tick_jobs", "Jobs advanced in a tick", ["kind"], buckets=SIZES, registry=own)
        self.busy = Counter("janusflow_busy_seconds", "Time that the model computed", ["kind"], registry=own)
        self.tokens = Counter("janusflow_tokens", "Tokens generated", registry=own)
        self.previews = Counter("janusflow_previews", "Previews sent", registry=own)
        self.finished = Counter("janusflow_finished", "Jobs with a result", ["kind"], registry=own)
        self.cancelled = Counter("janusflow_cancelled", "Jobs cancelled by their client", ["kind"], registry=own)
        self.failed = Counter("janusflow_failed", "Jobs that ended without a result", ["kind", "reason"], registry=own)
        self.rejected = Counter("janusflow_rejected", "Requests that were not accepted", ["reason"], registry=own)

    def count_end(self, kind: Kind, event: Event) -> None:
        """Count the last event of a job."""
        if not isinstance(event, Failed):
            self.finished.labels(kind).inc()
        elif isinstance(event.error, CancelledError):
            self.cancelled.labels(kind).inc()
        else:
            self.failed.labels(kind, "deadline" if isinstance(event.error, DeadlineError) else "error").inc()

    def text(self) -> bytes:
        """Return all metrics in Prometheus' text format."""
        return generate_latest(self.registry)
