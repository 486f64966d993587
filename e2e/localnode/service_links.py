"""The variables that describe Services to a pod, as a kubelet sets them (`enableServiceLinks`). Pure.

They are here because they bite: a Service called `vllm` gives every pod of its namespace a `VLLM_PORT` that
the engine would read as its own setting.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any


def service_variables(
    pod: Mapping[str, Any], services: Iterable[Mapping[str, Any]], api_server: tuple[str, int]
) -> dict[str, str]:
    """Return the variables for one pod: the API server's always, other Services' where links are on."""
    host, port = api_server
    variables = _link("KUBERNETES", host, [{"name": "https", "port": port, "protocol": "TCP"}])
    if pod["spec"].get("enableServiceLinks") is False:
        return variables
    for service in services:
        name, spec = service["metadata"]["name"], service["spec"]
        if service["metadata"]["namespace"] != pod["metadata"]["namespace"] or name == "kubernetes":
            continue
        if spec.get("clusterIP") not in (None, "", "None"):
            variables.update(_link(_variable(name), spec["clusterIP"], spec.get("ports") or []))
    return variables


def _variable(name: str) -> str:
    return name.upper().replace("-", "_").replace(".", "_")


def _link(name: str, address: str, ports: list[dict[str, Any]]) -> dict[str, str]:
    if not ports:
        return {}
    first = ports[0]
    variables = {
        f"{name}_SERVICE_HOST": address,
        f"{name}_SERVICE_PORT": str(first["port"]),
        f"{name}_PORT": f"tcp://{address}:{first['port']}",
    }
    for port in ports:
        if port.get("name"):
            variables[f"{name}_SERVICE_PORT_{_variable(port['name'])}"] = str(port["port"])
        prefix = f"{name}_PORT_{port['port']}_TCP"
        variables[prefix] = f"tcp://{address}:{port['port']}"
        variables[f"{prefix}_PROTO"] = "tcp"
        variables[f"{prefix}_PORT"] = str(port["port"])
        variables[f"{prefix}_ADDR"] = address
    return variables
