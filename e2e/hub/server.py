"""The HTTP side of the hub: a threaded server with a lifecycle, a request log and a control interface.

Why: tests start it in-process on a free port, the demo as `python -m e2e.hub`; both change faults while it
runs.
Control: `GET /control/requests`, `GET /control/faults`, `PUT` and `DELETE /control/faults/ORG/NAME`.
It must never outlive `stop`: requests that hang are released by it.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import TracebackType
from typing import Any, Self
from urllib.parse import parse_qs, unquote, urlsplit

from e2e.hub import catalog, content
from e2e.hub.answers import Answer, RefusalError, error
from e2e.hub.api import Api
from e2e.hub.faults import Fault, Faults
from e2e.hub.repository import Snapshot
from e2e.hub.store import Store


@dataclass(frozen=True, slots=True)
class LoggedRequest:
    """One answered request; `authorized` says whether it carried a token, never which."""

    method: str
    path: str
    status: int
    authorized: bool


class Hub:
    """A hub that serves `root` on `host`:`port` (0: any free port) between `start` and `stop`."""

    def __init__(
        self,
        root: Path,
        host: str = "127.0.0.1",
        port: int = 0,
        published: Callable[[str], Snapshot | None] = catalog.published,
    ) -> None:
        self.faults = Faults()
        self.stopping = threading.Event()
        self.api = Api(Store(root, published), self.faults)
        self._requests: list[LoggedRequest] = []
        self._server = ThreadingHTTPServer((host, port), _handler_of(self))
        self._server.daemon_threads = True
        self._thread = threading.Thread(
            target=self._server.serve_forever, args=(0.05,), name="hub", daemon=True
        )

    @property
    def endpoint(self) -> str:
        """The value for `HF_ENDPOINT`."""
        host, port = self._server.server_address[:2]
        return f"http://{host!s}:{port}"

    @property
    def requests(self) -> list[LoggedRequest]:
        """All requests answered so far, control requests left out."""
        return list(self._requests)

    def set_fault(self, repo_id: str, fault: Fault | None) -> None:
        """Put a fault in force for a repository, or none."""
        self.faults.set(repo_id, fault)

    def start(self) -> Self:
        """Serve in a thread of its own."""
        self._thread.start()
        return self

    def stop(self) -> None:
        """Stop serving, release requests that hang, free the port."""
        self.stopping.set()
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()

    def log(self, request: LoggedRequest) -> None:
        """Remember one answered request."""
        self._requests.append(request)

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()


def _handler_of(hub: Hub) -> type[BaseHTTPRequestHandler]:
    class Handler(_Handler):
        pass

    Handler.hub = hub
    return Handler


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    hub: Hub

    def do_GET(self) -> None:
        self._serve()

    do_HEAD = do_POST = do_PUT = do_DELETE = do_GET  # noqa: N815

    def _serve(self) -> None:
        url = urlsplit(self.path)
        path = unquote(url.path)
        # Read the body before answering, or the next request on this connection would begin in it.
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        query = parse_qs(url.query)
        if path.startswith("/control/"):
            self._send(self._control(path, body), None)
            return
        token = self.headers.get("Authorization", "").removeprefix("Bearer ").strip()
        try:
            # The encoded path: a revision or file name may hold an encoded slash.
            answer = self.hub.api.answer(self.command, url.path, query, body, token)
        except RefusalError as refusal:
            answer = refusal.answer
        if answer.fault is not None and answer.fault.kind == "hang":
            self.close_connection = True
            self.hub.stopping.wait()
            return
        self._send(answer, LoggedRequest(self.command, path, answer.status, bool(token)))

    def _send(self, answer: Answer, request: LoggedRequest | None) -> None:
        part = content.select(answer.size_bytes, self.headers.get("Range") if answer.ranges else None)
        status = part.status or answer.status
        if request is not None:
            # Before the answer: who has it may ask for the log at once.
            self.hub.log(replace(request, status=status))
        self.send_response(status)
        for name, value in {**answer.headers, **part.headers}.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(part.length))
        self.end_headers()
        if self.command == "HEAD" or part.length == 0:
            return
        try:
            complete = content.send(answer, part, self.wfile, self.hub.stopping)
        except (BrokenPipeError, ConnectionResetError):
            complete = False  # the client went away, which is its right
        if not complete:
            self.close_connection = True

    def _control(self, path: str, body: bytes) -> Answer:
        if path == "/control/requests":
            return Answer.of_json([asdict(request) for request in self.hub.requests])
        if path == "/control/faults":
            return Answer.of_json(self.hub.faults.to_json())
        if not path.startswith("/control/faults/"):
            return error(404, "", f"no control at {path}")
        repo_id = path.removeprefix("/control/faults/")
        try:
            self.hub.set_fault(repo_id, self._fault(body))
        except (ValueError, TypeError) as problem:
            return error(400, "", str(problem))
        return Answer.of_json({"repository": repo_id})

    def _fault(self, body: bytes) -> Fault | None:
        if self.command == "DELETE":
            return None
        parsed: Any = json.loads(body)
        return Fault.from_json(parsed)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002
        """Stay silent: the request log is there to be asked for."""
