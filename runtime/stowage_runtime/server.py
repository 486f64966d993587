"""The agent's own small HTTP server: probes for the kubelet, the report for the operator.

Routes are functions that answer at once from what is known; a request never reaches the engine. It must not
resolve names or write logs: it also has to answer while everything else is stuck.
"""

from __future__ import annotations

import http.server
import socket
import socketserver
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import ClassVar

_CONNECTION_SECONDS = 10.0


@dataclass(frozen=True)
class Answer:
    """A response with its body."""

    status: int
    body: str
    content_type: str = "text/plain; charset=utf-8"


Routes = Mapping[str, Callable[[], Answer]]


class _Server(socketserver.ThreadingMixIn, socketserver.TCPServer):
    allow_reuse_address = True
    daemon_threads = True
    request_queue_size = 64


class ReportServer:
    """Serves routes on one address until it is closed."""

    def __init__(self, host: str, port: int, routes: Routes) -> None:
        """Bind at once; raises OSError when the address cannot be had."""
        handler = type("Handler", (_Handler,), {"routes": dict(routes)})
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        server_class = type("Server", (_Server,), {"address_family": family})
        self._server = server_class((host, port), handler)
        self.port: int = self._server.server_address[1]
        self._thread = threading.Thread(target=self._server.serve_forever, name="report-server", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Stop serving and free the address."""
        self._server.shutdown()
        self._server.server_close()
        self._thread.join(_CONNECTION_SECONDS)


class _Handler(http.server.BaseHTTPRequestHandler):
    routes: ClassVar[Routes] = {}
    timeout = _CONNECTION_SECONDS
    server_version = "stowage-agent"
    sys_version = ""

    def do_GET(self) -> None:
        """Answer a known path."""
        route = self.routes.get(self.path.split("?", 1)[0])
        answer = Answer(404, "not found\n") if route is None else route()
        body = answer.body.encode()
        self.send_response(answer.status)
        self.send_header("Content-Type", answer.content_type)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - a given name
        """Keep probes out of the log."""
