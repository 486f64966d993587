from __future__ import annotations

from typing import Any

import pytest

from e2e.localnode.service_links import service_variables
from e2e.localnode.service_proxy import service_routes


def service(name: str = "web", **spec: Any) -> dict[str, Any]:
    ports = [{"name": "http", "port": 80, "protocol": "TCP"}]
    return {
        "metadata": {"namespace": "ns", "name": name},
        "spec": {"clusterIP": "10.96.0.9", "ports": ports, **spec},
    }


def endpoints(
    *entries: tuple[str, dict[str, bool]], port: str = "http", namespace: str = "ns"
) -> dict[str, Any]:
    return {
        "metadata": {"namespace": namespace, "labels": {"kubernetes.io/service-name": "web"}},
        "ports": [{"name": port, "port": 8000}],
        "endpoints": [{"addresses": [address], "conditions": conditions} for address, conditions in entries],
    }


READY = {"ready": True, "serving": True, "terminating": False}
DRAINING = {"ready": False, "serving": True, "terminating": True}
STARTING = {"ready": False, "serving": False, "terminating": False}


@pytest.mark.parametrize(
    ("services", "slices", "expected"),
    [
        pytest.param(
            [service()], [endpoints(("10.244.0.1", READY))], ["10.244.0.1"], id="a ready endpoint is used"
        ),
        pytest.param(
            [service()],
            [endpoints(("10.244.0.1", READY), ("10.244.0.2", DRAINING))],
            ["10.244.0.1"],
            id="one that terminates is not, while another is ready",
        ),
        pytest.param(
            [service()],
            [endpoints(("10.244.0.2", DRAINING))],
            ["10.244.0.2"],
            id="one that terminates is used when there is no other",
        ),
        pytest.param(
            [service()], [endpoints(("10.244.0.3", STARTING))], [], id="one that is not ready never is"
        ),
        pytest.param(
            [service()],
            [endpoints(("10.244.0.1", {}))],
            ["10.244.0.1"],
            id="unknown readiness counts as ready",
        ),
        pytest.param(
            [service()], [endpoints(("10.244.0.1", READY), port="other")], [], id="ports match by name"
        ),
        pytest.param(
            [service()], [endpoints(("10.244.0.1", READY), namespace="x")], [], id="namespaces are apart"
        ),
        pytest.param(
            [service(clusterIP="None")], [endpoints(("10.244.0.1", READY))], [], id="headless has no address"
        ),
        pytest.param(
            [service()],
            [endpoints(("10.244.0.1", READY)), endpoints(("10.244.0.2", READY))],
            ["10.244.0.1", "10.244.0.2"],
            id="all slices of a Service count",
        ),
    ],
)
def test_service_routes(services: list[Any], slices: list[Any], expected: list[str]) -> None:
    routes = service_routes(services, slices)
    assert [host for host, _ in routes.get(("10.96.0.9", 80), ())] == expected


POD = {"metadata": {"namespace": "ns", "name": "p"}, "spec": {}}
API = ("10.96.0.1", 443)


def test_a_service_called_vllm_shadows_the_engine_s_own_variable() -> None:
    variables = service_variables(POD, [service("vllm")], API)
    assert variables["VLLM_PORT"] == "tcp://10.96.0.9:80"
    assert variables["VLLM_SERVICE_PORT_HTTP"] == "80"
    assert variables["VLLM_PORT_80_TCP_ADDR"] == "10.96.0.9"


def test_without_service_links_only_the_api_server_is_described() -> None:
    pod = {**POD, "spec": {"enableServiceLinks": False}}
    variables = service_variables(pod, [service("vllm")], API)
    assert variables["KUBERNETES_SERVICE_HOST"] == "10.96.0.1"
    assert not [name for name in variables if not name.startswith("KUBERNETES_")]


def test_services_of_other_namespaces_and_headless_ones_are_not_described() -> None:
    other = {**service("a"), "metadata": {"namespace": "x", "name": "a"}}
    variables = service_variables(POD, [other, service("b", clusterIP="None")], API)
    assert not [name for name in variables if not name.startswith("KUBERNETES_")]
