"""The operator's own HTTP endpoints: /healthz and /readyz on one port, /metrics on another.

Up before anything else, so that a standby and an operator that waits for its CRD answer too. Liveness is about this
process alone: a kubelet must never restart it because the API server is away.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from typing import Any

from aiohttp import web

from stowage.telemetry import Telemetry

MAXIMUM_LAG_SECONDS = 30.0
_BEAT_SECONDS = 0.5


@dataclass(slots=True)
class Health:
    """What the probes answer from. `waiting_for` says why the process is not ready; None when it is."""

    waiting_for: str | None = "start-up"
    dead_task: str | None = None
    lag_seconds: float = 0.0

    def liveness(self) -> str | None:
        """Why the process should be restarted, or None."""
        if self.dead_task is not None:
            return f"task {self.dead_task} has ended"
        if self.lag_seconds >= MAXIMUM_LAG_SECONDS:
            return f"the event loop is {self.lag_seconds:.0f} s late"
        return None

    def readiness(self) -> str | None:
        """Why the process is not ready, or None."""
        return f"waiting for {self.waiting_for}" if self.waiting_for else None


async def beat(health: Health, telemetry: Telemetry) -> None:
    """Measure how late the event loop is, until cancelled."""
    loop = asyncio.get_running_loop()
    while True:
        due = loop.time() + _BEAT_SECONDS
        await asyncio.sleep(_BEAT_SECONDS)
        health.lag_seconds = max(0.0, loop.time() - due)
        telemetry.lagged(health.lag_seconds)


class ProbeServer:
    """Serves probes and metrics; port 0 takes any free one, port -1 serves nothing."""

    def __init__(self, health: Health, telemetry: Telemetry, host: str) -> None:
        self._health = health
        self._telemetry = telemetry
        self._host = host
        self._runners: list[web.AppRunner] = []

    async def start(self, health_port: int, metrics_port: int) -> tuple[int, int]:
        """Listen; gives the two ports. Raises OSError when one is taken."""
        probes = web.Application()
        probes.router.add_get("/healthz", self._probe(self._health.liveness))
        probes.router.add_get("/readyz", self._probe(self._health.readiness))
        metrics = web.Application()
        metrics.router.add_get("/metrics", self._metrics)
        return await self._listen(probes, health_port), await self._listen(metrics, metrics_port)

    async def close(self) -> None:
        """Stop listening."""
        for runner in self._runners:
            await runner.cleanup()

    async def _listen(self, application: web.Application, port: int) -> int:
        if port < 0:
            return port
        runner = web.AppRunner(application, access_log=None)
        await runner.setup()
        self._runners.append(runner)
        await web.TCPSite(runner, self._host, port).start()
        return int(runner.addresses[0][1])

    def _probe(
        self, problem: Callable[[], str | None]
    ) -> Callable[[web.Request], Coroutine[Any, Any, web.Response]]:
        async def answer(_request: web.Request) -> web.Response:
            found = problem()
            return web.Response(status=503 if found else 200, text=f"{found or 'ok'}\n")

        return answer

    async def _metrics(self, _request: web.Request) -> web.Response:
        body = self._telemetry.render()
        return web.Response(body=body, headers={"Content-Type": "text/plain; version=0.0.4; charset=utf-8"})
