"""The process that owns the cluster's network namespace and is the one door between it and the outside.

It opens its listeners outside, then moves itself into new namespaces, so that one process stands in both:
it relays the API server's port to ordinary shells, and hands out connected or listening sockets of the
inside to whoever may open its private Unix socket. On the standard library only. It must never listen on
anything but loopback outside, and must end when told to, or with its parent when that was asked for.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import functools
import json
import os
import signal
import socket
import sys
import threading
from collections.abc import Iterator
from typing import Any

from e2e.controlplane.enter import die_with_parent
from e2e.controlplane.netns import loopback_up, route_local, unshare

CHUNK_BYTES = 1 << 16


@contextlib.contextmanager
def short_path(path: str | os.PathLike[str]) -> Iterator[str]:
    """Yield a name for a Unix socket that fits the kernel's 108 bytes, however deep its directory lies."""
    directory, name = os.path.split(os.fspath(path))
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        yield f"/proc/self/fd/{descriptor}/{name}"
    finally:
        os.close(descriptor)


def broker_socket(path: str) -> socket.socket:
    """Open the private Unix socket at `path`, replacing one that a dead gateway left."""
    with contextlib.suppress(FileNotFoundError):
        os.unlink(path)
    server = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    with short_path(path) as name:
        previous = os.umask(0o177)
        server.bind(name)
        os.umask(previous)
    server.listen(64)
    server.setblocking(False)
    return server


def tcp_listener(host: str, port: int) -> socket.socket:
    """Listen on an IPv4 address of the namespace that this thread is in; raises `OSError` if it is taken."""
    server = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    try:
        server.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        server.bind((host, port))
        server.listen(128)
    except OSError:
        server.close()
        raise
    return server


def serve_broker(client: socket.socket) -> None:
    """Answer one request (JSON: operation, host, port, timeout) with a socket of the inside or a reason."""
    with client:
        try:
            request: dict[str, Any] = json.loads(client.makefile("r").readline())
            address = (str(request["host"]), int(request["port"]))
            if request["operation"] == "listen":
                answer = tcp_listener(*address)
            else:
                answer = socket.create_connection(address, timeout=float(request["timeout"]))
        except (OSError, ValueError, KeyError) as error:
            with contextlib.suppress(OSError):
                client.sendall(json.dumps([getattr(error, "errno", None), str(error)]).encode())
            return
        with answer, contextlib.suppress(OSError):
            answer.setblocking(True)
            socket.send_fds(client, [b"+"], [answer.fileno()])


async def pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Copy one direction until its end, and pass the end on."""
    while data := await reader.read(CHUNK_BYTES):
        writer.write(data)
        await writer.drain()
    with contextlib.suppress(OSError, RuntimeError):
        writer.write_eof()


async def relay(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, port: int) -> None:
    """Join one accepted connection with a new one to `127.0.0.1:port` of the inside."""
    try:
        inner_reader, inner_writer = await asyncio.open_connection("127.0.0.1", port)
    except OSError:
        writer.transport.abort()
        return
    pumps = [
        asyncio.ensure_future(pump(reader, inner_writer)),
        asyncio.ensure_future(pump(inner_reader, writer)),
    ]
    try:
        await asyncio.gather(*pumps)
    except OSError:
        pass
    finally:
        for task in pumps:
            task.cancel()
        writer.close()
        inner_writer.close()


async def serve(relays: list[tuple[socket.socket, int]], broker: socket.socket) -> None:
    """Relay each listener to its port of the inside, and broker, until SIGTERM or SIGINT."""
    loop, stopped = asyncio.get_running_loop(), asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stopped.set)

    def accept() -> None:
        with contextlib.suppress(OSError):
            client, _ = broker.accept()
            client.setblocking(True)
            threading.Thread(target=serve_broker, args=(client,), daemon=True).start()

    loop.add_reader(broker.fileno(), accept)
    for listener, port in relays:
        await asyncio.start_server(functools.partial(relay, port=port), sock=listener)
    await stopped.wait()


def prepare(options: argparse.Namespace) -> tuple[list[tuple[socket.socket, int]], socket.socket]:
    """Open what belongs outside, move inside, open what belongs there."""
    relays = [(tcp_listener("127.0.0.1", port), port) for port in options.forward]
    broker = broker_socket(options.socket)
    unshare(with_user=options.mode == "user")
    loopback_up()
    for network in options.route:
        route_local(network)
    for entry in options.inside:
        host, port, target = entry.split(":")
        relays.append((tcp_listener(host, int(port)), int(target)))
    return relays, broker


def _answer(answer: dict[str, Any]) -> None:
    """Tell the starter, in one write: it stops listening after the first."""
    os.write(sys.stdout.fileno(), json.dumps(answer).encode() + b"\n")


def main(arguments: list[str]) -> int:
    """Print `{"ready": true}` or `{"error": …}` as one line on stdout, then serve."""
    parser = argparse.ArgumentParser(prog="gateway")
    parser.add_argument("--mode", choices=("net", "user"), required=True)
    parser.add_argument("--socket", required=True, help="the broker's Unix socket")
    parser.add_argument(
        "--forward", type=int, action="append", default=[], help="a port, the same on both sides"
    )
    parser.add_argument(
        "--inside", action="append", default=[], help="HOST:PORT:TARGET, a relay within the inside"
    )
    parser.add_argument("--route", action="append", default=[], help="an IPv4 network that is local inside")
    parser.add_argument("--parent", type=int, help="end with this parent process")
    options = parser.parse_args(arguments)
    try:
        os.setsid()
        relays, broker = prepare(options)
        if options.parent:  # after `prepare`: changing credentials forgets it
            die_with_parent(options.parent)
    except OSError as error:
        _answer({"error": str(error)})
        return 1
    _answer({"ready": True})
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())  # the reader of the line above goes away
    asyncio.run(serve(relays, broker))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
