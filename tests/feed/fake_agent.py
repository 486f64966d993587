"""An agent that reports a start of a real engine, for pods that nobody runs: on port 9400 of a loopback address."""

from __future__ import annotations

import http.server
import secrets
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from stowage.engine.record import read_in_force
from stowage.render.names import AGENT_PORT
from stowage_runtime.contract import EngineFacts, RuntimeReport

GIB = 2**30


def start_of(deployment: dict[str, Any], more_bytes: int) -> RuntimeReport:
    """A start of what the Deployment plans that took so much more outside of PyTorch; its parts add up."""
    record = read_in_force(deployment)
    assert record is not None
    ledger = record.plan.ledger
    return RuntimeReport(
        phase="Serving",
        phase_since="2026-01-01T00:00:00Z",
        started_at="2026-01-01T00:00:00Z",
        launch_hash="0" * 64,
        engine=EngineFacts(
            kind="vllm",
            version=record.plan.engine_version,
            kv_cache_tokens=ledger.kv_tokens,
            weights_bytes=ledger.weights_allocated_bytes,
            activation_bytes=ledger.activation_bytes,
            non_torch_bytes=ledger.non_torch_bytes + ledger.persistent_bytes + more_bytes,
            cuda_graph_estimate_bytes=ledger.cuda_graph_bytes,
            kv_cache_bytes=ledger.kv_cache_bytes - more_bytes,
        ),
    )


@contextmanager
def fake_agent(report: RuntimeReport) -> Iterator[str]:
    """Serve `/report`; gives the address, which no other test uses at the same time."""
    address = f"127.{secrets.randbelow(200) + 20}.{secrets.randbelow(250)}.{secrets.randbelow(250) + 2}"
    body = report.to_json().encode()

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200 if self.path == "/report" else 404)
            self.end_headers()
            self.wfile.write(body if self.path == "/report" else b"")

        def log_message(self, format: str, *args: Any) -> None:  # noqa: A002
            """Say nothing."""

    server = http.server.ThreadingHTTPServer((address, AGENT_PORT), Handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield address
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
