"""The network of a cluster, in every mode that this machine allows."""

from __future__ import annotations

import http.server
import os
import random
import socket
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from e2e.controlplane import namespace as namespace_module
from e2e.controlplane.inside_http import InsideConnection
from e2e.controlplane.namespace import Mode, Namespace, NamespaceError
from e2e.controlplane.ports import NoFreePort, free_ports
from e2e.controlplane.processes import Process


class Answer(http.server.BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        body = f"{self.request.getsockname()[0]}{self.path}".encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002
        del format, args


@contextmanager
def http_server(listener: socket.socket) -> Iterator[None]:
    """Serve on a listening socket, which may be one of the inside, from a thread of this process."""
    server = http.server.ThreadingHTTPServer(("", 0), Answer, bind_and_activate=False)
    server.socket.close()
    server.socket, server.server_address = listener, listener.getsockname()
    thread = threading.Thread(target=server.serve_forever, args=(0.02,))
    thread.start()
    try:
        yield
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def get(network: Namespace, host: str, port: int) -> str:
    connection = InsideConnection(network, host, port)
    try:
        connection.request("GET", "/path")
        return connection.getresponse().read().decode()
    finally:
        connection.close()


def open_namespace(directory: Path, mode: Mode, port: int = 0) -> Namespace:
    directory.mkdir(parents=True)
    port = port or free_ports(1, random.SystemRandom())[0]
    try:
        return Namespace.create(directory, port, mode=mode)
    except NamespaceError as error:
        pytest.skip(str(error))


@pytest.fixture(params=["net", "user"])
def isolated(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Namespace]:
    network = open_namespace(tmp_path / ("deep" * 20) / "network", request.param)
    yield network
    network.close()


@pytest.fixture(params=["net", "user", "loopback"])
def network(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Namespace]:
    network = open_namespace(tmp_path / "network", request.param)
    yield network
    network.close()


def test_two_pods_listen_on_the_same_port_of_their_addresses(isolated: Namespace) -> None:
    first, second = isolated.listen("10.244.1.2", 8000), isolated.listen("10.244.200.3", 8000)
    with http_server(first), http_server(second):
        assert get(isolated, "10.244.1.2", 8000) == "10.244.1.2/path"
        assert get(isolated, "10.244.200.3", 8000) == "10.244.200.3/path"


def test_an_address_of_a_pod_is_not_one_of_this_machine(isolated: Namespace) -> None:
    refusal = pytest.raises(OSError, match="Cannot assign requested address")
    with isolated.listen("10.244.1.2", 8000), socket.socket() as outside, refusal:
        outside.bind(("10.244.1.2", 8000))


def test_a_command_inside_reaches_what_listens_inside(network: Namespace) -> None:
    host = "10.244.1.2" if network.isolated else "127.0.0.1"
    with network.listen(host, 0) as listener:
        port = listener.getsockname()[1]
        program = f"import socket; socket.create_connection(({host!r}, {port})).sendall(b'from inside')"
        with network.popen([sys.executable, "-c", program]) as process:
            connection, _ = listener.accept()
            with connection:
                assert connection.recv(100) == b"from inside"
        assert process.returncode == 0


def test_nobody_listening_is_a_refused_connection(network: Namespace) -> None:
    with network.listen("127.0.0.1", 0) as listener:
        port = listener.getsockname()[1]
    with pytest.raises(ConnectionRefusedError):
        network.connect("127.0.0.1", port)


def test_a_taken_address_is_said_to_be_taken(network: Namespace) -> None:
    with network.listen("127.0.0.1", 0) as listener, pytest.raises(OSError, match="Address already in use"):
        network.listen("127.0.0.1", listener.getsockname()[1])


@pytest.mark.parametrize("mode", ["net", "user"])
def test_the_api_port_is_the_same_outside_and_by_the_service_address(tmp_path: Path, mode: Mode) -> None:
    (port,) = free_ports(1, random.SystemRandom())
    network = open_namespace(tmp_path / "network", mode, port)
    try:
        with http_server(network.listen("127.0.0.1", port)):
            outside = http.client.HTTPConnection("127.0.0.1", port)
            outside.request("GET", "/path")
            assert outside.getresponse().read() == b"127.0.0.1/path"
            outside.close()
            assert get(network, "10.96.0.1", 443) == "127.0.0.1/path"
    finally:
        network.close()


def test_a_relayed_port_without_a_server_ends_the_connection(tmp_path: Path) -> None:
    (port,) = free_ports(1, random.SystemRandom())
    network = open_namespace(tmp_path / "network", "user", port)
    try:
        outside = socket.create_connection(("127.0.0.1", port), timeout=10.0)
        with outside, suppress(ConnectionResetError):
            assert outside.recv(1) == b""
    finally:
        network.close()


def test_closing_ends_everything_inside_and_nothing_else(isolated: Namespace) -> None:
    sleeper = [sys.executable, "-c", "import time; time.sleep(600)"]
    with subprocess.Popen(sleeper) as outside, isolated.popen(sleeper, detached=True) as inside:
        known = Process.of(inside.pid)
        assert known is not None
        gateway = isolated.gateway
        assert gateway is not None
        while known not in isolated.processes():
            time.sleep(0.01)
        isolated.close()
        isolated.close()
        assert not known.is_running()
        assert not gateway.is_running()
        assert outside.poll() is None
        outside.kill()


@pytest.mark.parametrize("mode", ["net", "user"])
def test_everything_dies_with_the_process_that_made_it(tmp_path: Path, mode: Mode) -> None:
    open_namespace(tmp_path / "probe", mode).close()
    (tmp_path / "network").mkdir()
    program = f"""
        import os, pathlib, signal, sys
        from e2e.controlplane.namespace import Namespace
        network = Namespace.create(pathlib.Path({str(tmp_path / "network")!r}), 0, mode={mode!r})
        inside = network.popen([sys.executable, "-c", "import time; time.sleep(600)"])
        print(network.gateway.pid, inside.pid, flush=True)
        input()
        os.kill(os.getpid(), signal.SIGKILL)
    """
    command = [sys.executable, "-c", textwrap.dedent(program)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as maker:
        assert maker.stdout is not None
        processes = [Process.of(int(pid)) for pid in maker.stdout.readline().split()]
        maker.communicate("\n")
    assert len(processes) == 2
    assert all(process is not None and process.wait_gone(10.0) for process in processes)


def test_a_machine_that_refuses_namespaces_falls_back_to_loopback_and_says_why(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*arguments: object, **options: object) -> Process:
        raise NamespaceError("unshare: Operation not permitted")

    monkeypatch.delenv("STOWAGE_NETWORK", raising=False)
    monkeypatch.setattr(namespace_module, "_start_gateway", refuse)
    network = Namespace.create(tmp_path, 1)
    assert network.mode == "loopback"
    assert "unshare: Operation not permitted" in network.describe()
    assert network.wrap(["kubectl", "get"]) == ["kubectl", "get"]
    with pytest.raises(NamespaceError, match="refuses the network mode user"):
        Namespace.create(tmp_path, 1, mode="user")


def test_a_network_mode_that_does_not_exist_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("STOWAGE_NETWORK", "bridge")
    with pytest.raises(NamespaceError, match="STOWAGE_NETWORK=bridge: expected net, user or loopback"):
        Namespace.create(tmp_path, 1)


def test_a_record_names_the_same_network(network: Namespace) -> None:
    assert Namespace.from_record(network.to_record()) == network


def test_ports_are_free_different_and_below_the_ephemeral_range() -> None:
    ports = free_ports(20, random.Random(7))
    start = int(Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split()[0])
    assert len(set(ports)) == 20
    assert max(ports) < max(start, 21000)
    for port in ports:
        with socket.socket() as listener:
            listener.bind(("127.0.0.1", port))


def test_more_ports_than_there_are_is_a_failure() -> None:
    with pytest.raises(NoFreePort):
        free_ports(50_000, random.Random(7))


def test_this_process_never_enters(network: Namespace) -> None:
    before = os.readlink("/proc/self/ns/net")
    network.listen("127.0.0.1", 0).close()
    assert os.readlink("/proc/self/ns/net") == before
