"""Metrics of the operator, under the names that dashboards for controller-runtime already know.

Labels are bounded: namespaces and names of LLMDeployments, reasons from the documented list, never a pod, an error text
or a URL. Nothing here influences what the operator does.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    ProcessCollector,
    generate_latest,
)

from stowage.world import Key

CONTROLLER = "llmdeployment"
_SECONDS = (0.001, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)


@dataclass(slots=True)
class Result:
    """How a reconciliation ended: success, error, requeue or requeue_after."""

    name: str = "error"


class Telemetry:
    """All metrics on a registry of their own, so that tests and several operators in one process do not collide."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        ProcessCollector(registry=self.registry)  # memory, CPU seconds and open files of this process
        self._reconcile_metrics()
        self._queue_metrics()
        self._client_metrics()
        self._own_metrics()

    def render(self) -> bytes:
        """The exposition format."""
        return generate_latest(self.registry)

    @contextlib.contextmanager
    def reconciling(self) -> Iterator[Result]:
        """Time one reconciliation; the caller says how it ended."""
        result = Result()
        started = time.monotonic()
        self._active_workers.labels(CONTROLLER).inc()
        try:
            yield result
        finally:
            self._active_workers.labels(CONTROLLER).dec()
            self._reconcile_seconds.labels(CONTROLLER).observe(time.monotonic() - started)
            self._reconciled.labels(CONTROLLER, result.name).inc()
            if result.name == "error":
                self._reconcile_errors.labels(CONTROLLER).inc()

    @contextlib.contextmanager
    def deciding(self) -> Iterator[None]:
        """Time one call of the engine."""
        started = time.monotonic()
        try:
            yield
        finally:
            self._plan_seconds.observe(time.monotonic() - started)

    def set_workers(self, count: int) -> None:
        """How many workers there are."""
        self._max_workers.labels(CONTROLLER).set(count)

    def watch_queue(self, depth: Callable[[], int], running: Callable[[], tuple[float, ...]]) -> None:
        """Read the queue's depth and the ages of the work in hand whenever somebody scrapes."""
        self._depth.labels(CONTROLLER).set_function(depth)
        self._unfinished.labels(CONTROLLER).set_function(lambda: sum(running()))
        self._longest.labels(CONTROLLER).set_function(lambda: max(running(), default=0.0))

    def added(self) -> None:
        """A key went into the queue."""
        self._adds.labels(CONTROLLER).inc()

    def taken(self, waited_seconds: float) -> None:
        """A worker took a key."""
        self._waited.labels(CONTROLLER).observe(waited_seconds)

    def finished(self, worked_seconds: float) -> None:
        """A worker is done with a key."""
        self._worked.labels(CONTROLLER).observe(worked_seconds)

    def retried(self) -> None:
        """A key was put back with a back-off."""
        self._retries.labels(CONTROLLER).inc()

    def requested(self, method: str, code: str) -> None:
        """A request to the API server was answered, or failed with code `<error>`."""
        self._requests.labels(code, method, self._host).inc()

    def set_host(self, host: str) -> None:
        """The API server's host and port, for the label of the request counter."""
        self._host = host

    def leading(self, name: str, leads: bool) -> None:
        """Whether this process holds the Lease."""
        self._leader.labels(name).set(1 if leads else 0)

    def lagged(self, seconds: float) -> None:
        """How late the event loop was."""
        self.loop_lag.set(seconds)

    def show_replicas(self, key: Key, status: Mapping[str, Any]) -> None:
        """Replicas and rejections of one LLMDeployment, from its status."""
        desired = (status.get("scaling") or {}).get("desiredReplicas", 0)
        self._desired.labels(*key).set(desired)
        self._ready.labels(*key).set(status.get("readyReplicas", 0))
        for condition in status.get("conditions") or ():
            if condition["type"] == "Planned" and condition["status"] == "False":
                self._count_rejection(key, condition)

    def forget(self, key: Key) -> None:
        """The LLMDeployment is gone: its series end."""
        self._rejected.pop(key, None)
        for gauge in (self._desired, self._ready):
            with contextlib.suppress(KeyError):
                gauge.remove(*key)

    def _count_rejection(self, key: Key, condition: Mapping[str, Any]) -> None:
        seen = (condition.get("observedGeneration"), condition.get("reason"))
        if self._rejected.get(key) != seen:
            self._rejected[key] = seen
            self._rejections.labels(condition.get("reason", "")).inc()

    def _reconcile_metrics(self) -> None:
        prefix, label, registry = "controller_runtime", ["controller"], self.registry
        self._reconciled = Counter(
            f"{prefix}_reconcile_total", "Reconciliations by result.", [*label, "result"], registry=registry
        )
        self._reconcile_errors = Counter(
            f"{prefix}_reconcile_errors_total", "Failed reconciliations.", label, registry=registry
        )
        self._reconcile_seconds = Histogram(
            f"{prefix}_reconcile_time_seconds",
            "Duration of a reconciliation.",
            label,
            buckets=_SECONDS,
            registry=registry,
        )
        self._max_workers = Gauge(
            f"{prefix}_max_concurrent_reconciles", "Number of workers.", label, registry=registry
        )
        self._active_workers = Gauge(
            f"{prefix}_active_workers", "Workers that are busy.", label, registry=registry
        )

    def _queue_metrics(self) -> None:
        label, registry = ["name"], self.registry
        self._depth = Gauge("workqueue_depth", "Keys that wait.", label, registry=registry)
        self._adds = Counter("workqueue_adds_total", "Keys added.", label, registry=registry)
        self._retries = Counter("workqueue_retries_total", "Keys put back.", label, registry=registry)
        self._waited = Histogram(
            "workqueue_queue_duration_seconds",
            "Time a key waits.",
            label,
            buckets=_SECONDS,
            registry=registry,
        )
        self._worked = Histogram(
            "workqueue_work_duration_seconds",
            "Time a key is worked on.",
            label,
            buckets=_SECONDS,
            registry=registry,
        )
        self._unfinished = Gauge(
            "workqueue_unfinished_work_seconds", "Age of all work in hand.", label, registry=registry
        )
        self._longest = Gauge(
            "workqueue_longest_running_processor_seconds", "Age of the oldest work.", label, registry=registry
        )

    def _client_metrics(self) -> None:
        self._host = ""
        self._requests = Counter(
            "rest_client_requests_total",
            "Requests to the API server.",
            ["code", "method", "host"],
            registry=self.registry,
        )
        self._leader = Gauge(
            "leader_election_master_status", "1 while this process leads.", ["name"], registry=self.registry
        )

    def _own_metrics(self) -> None:
        label, registry = ["namespace", "name"], self.registry
        self._rejected: dict[Key, tuple[Any, Any]] = {}
        self._desired = Gauge("stowage_desired_replicas", "Replicas asked for.", label, registry=registry)
        self._ready = Gauge("stowage_ready_replicas", "Replicas that serve.", label, registry=registry)
        self._rejections = Counter(
            "stowage_plan_rejections_total",
            "Specs that no plan was found for.",
            ["reason"],
            registry=registry,
        )
        self._plan_seconds = Histogram(
            "stowage_plan_duration_seconds", "Duration of the engine.", buckets=_SECONDS, registry=registry
        )
        self.scrape_errors = Counter(
            "stowage_scrape_errors_total", "Reports that could not be read.", registry=registry
        )
        self.dropped_events = Counter(
            "stowage_dropped_events_total", "Events that were not posted.", registry=registry
        )
        self.ghosts = Counter(
            "stowage_resync_ghosts_total", "Objects that only a LIST showed to be gone.", registry=registry
        )
        self.loop_lag = Gauge("stowage_event_loop_lag_seconds", "How late the loop was.", registry=registry)
