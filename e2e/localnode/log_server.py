"""Serve `kubectl logs`: the one endpoint of a kubelet that the API server is given, over TLS.

Only the API server may ask, where its certificate authority is known: a client certificate of that authority
is then required. Options that it does not implement are refused, not ignored.
"""

from __future__ import annotations

import ipaddress
import ssl
import tempfile
from collections.abc import Callable
from datetime import UTC, datetime, timedelta

from aiohttp import web
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from e2e.localnode.logs import ContainerLogs, follow, tail_offset

Find = Callable[[str, str, str], tuple[ContainerLogs, Callable[[], tuple[int, bool]]]]
_REFUSED = ("timestamps", "sinceSeconds", "sinceTime", "stream", "insecureSkipTLSVerifyBackend")


class LogServer:
    """The endpoint; `find(namespace, pod, container)` returns the logs and a look at (run, running)."""

    def __init__(self, address: str, authority: str, find: Find) -> None:
        self._address = address
        self._authority = authority
        self._find = find
        self._runner: web.AppRunner | None = None
        self.port = 0

    async def start(self) -> None:
        """Listen on a free port."""
        app = web.Application()
        app.router.add_get("/containerLogs/{namespace}/{pod}/{container}", self._serve)
        app.router.add_route("*", "/{rest:.*}", _not_implemented)
        self._runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
        await self._runner.setup()
        site = web.TCPSite(
            self._runner, self._address, 0, ssl_context=server_tls(self._address, self._authority)
        )
        await site.start()
        self.port = self._runner.addresses[0][1]

    async def stop(self) -> None:
        """Stop listening."""
        if self._runner:
            await self._runner.cleanup()

    async def _serve(self, request: web.Request) -> web.StreamResponse:
        query = request.query
        refused = [name for name in _REFUSED if query.get(name) not in (None, "false", "All")]
        if refused:
            return web.Response(
                status=400, text=f"the local node does not implement the log option {refused[0]}\n"
            )
        info = request.match_info
        try:
            logs, look = self._find(info["namespace"], info["pod"], info["container"])
        except KeyError:
            return web.Response(status=404, text=f"container {info['container']} not found\n")
        run, _ = look()
        run -= query.get("previous") == "true"
        file = logs.path(run)
        if not file.exists():
            return web.Response(status=400, text=f"container {info['container']} has no log of that run\n")
        offset = tail_offset(file, int(query["tailLines"])) if "tailLines" in query else 0

        def alive() -> bool:
            return query.get("follow") == "true" and look() == (run, True)

        response = web.StreamResponse(headers={"Content-Type": "text/plain"})
        await response.prepare(request)
        left = int(query.get("limitBytes", 1 << 62))
        async for chunk in follow(file, offset, alive):
            await response.write(chunk[:left])
            left -= len(chunk)
            if left <= 0:
                break
        return response


async def _not_implemented(request: web.Request) -> web.Response:
    return web.Response(status=501, text=f"the local node does not implement {request.path}\n")


def server_tls(address: str, authority: str) -> ssl.SSLContext:
    """Return a context with a certificate made now; clients need one of `authority` (PEM, if not empty)."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "stowage-localnode")])
    now = datetime.now(UTC)
    names = x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address(address))])
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(hours=1))
        .not_valid_after(now + timedelta(days=30))
        .add_extension(names, critical=False)
        .sign(key, hashes.SHA256())
    )
    text = certificate.public_bytes(serialization.Encoding.PEM) + key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    with tempfile.NamedTemporaryFile() as pair:  # `ssl` reads a key from a file only; mode 0600
        pair.write(text)
        pair.flush()
        context.load_cert_chain(pair.name)
    if authority:
        context.load_verify_locations(cadata=authority)
        context.verify_mode = ssl.CERT_REQUIRED
    return context
