"""Ask components how they are over HTTPS, from outside of their namespace.

Only for waiting while they start; everything else talks to the API server through kubectl or a real client.
It must never hold a connection open.
"""

from __future__ import annotations

import http.client
import ssl
from dataclasses import dataclass

from e2e.controlplane.namespace import Namespace

_TIMEOUT_SECONDS = 5.0


@dataclass(frozen=True, slots=True)
class Probe:
    """Reads health addresses of the components on 127.0.0.1 of `namespace`, with an optional bearer token."""

    namespace: Namespace
    token: str = ""

    def accepts(self, port: int) -> bool:
        """Tell whether something accepts connections on a port."""
        try:
            self.namespace.connect("127.0.0.1", port, _TIMEOUT_SECONDS).close()
        except OSError:
            return False
        return True

    def status(self, port: int, path: str) -> int:
        """Return the HTTP status of a GET, or 0 where nobody answers."""
        context = ssl.create_default_context()
        context.check_hostname = (
            False  # controller-manager and scheduler serve certificates of their own making
        )
        context.verify_mode = ssl.CERT_NONE
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=_TIMEOUT_SECONDS)
        try:
            raw = self.namespace.connect("127.0.0.1", port, _TIMEOUT_SECONDS)
            with context.wrap_socket(raw, server_hostname="127.0.0.1") as connection.sock:
                headers = {"Authorization": f"Bearer {self.token}"} if self.token else {}
                connection.request("GET", path, headers=headers)
                return connection.getresponse().status
        except (OSError, http.client.HTTPException):
            return 0
        finally:
            connection.close()
