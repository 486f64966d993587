from __future__ import annotations

from typing import Any

import pytest

from e2e.localnode.fields import unsupported_field

CONTAINER: dict[str, Any] = {"name": "c", "image": "i"}


def spec(**fields: Any) -> dict[str, Any]:
    return {"containers": [CONTAINER], **fields}


def with_container(**fields: Any) -> dict[str, Any]:
    return {"containers": [CONTAINER, {**CONTAINER, **fields}]}


@pytest.mark.parametrize(
    "pod",
    [
        pytest.param(spec(), id="the smallest pod"),
        pytest.param(
            spec(hostNetwork=False, securityContext={}, tolerations=[{"key": "a"}]), id="harmless values"
        ),
        pytest.param(
            with_container(livenessProbe={"httpGet": {"path": "/", "port": "http"}}), id="an HTTP probe"
        ),
        pytest.param(with_container(lifecycle={"preStop": {"sleep": {"seconds": 1}}}), id="a preStop sleep"),
        pytest.param(
            spec(
                volumes=[
                    {"name": "t", "projected": {"sources": [{"serviceAccountToken": {"path": "token"}}]}}
                ]
            ),
            id="a projected token",
        ),
        pytest.param(
            with_container(securityContext={"capabilities": {"drop": ["ALL"]}}), id="dropped capabilities"
        ),
    ],
)
def test_supported(pod: dict[str, Any]) -> None:
    assert unsupported_field(pod) is None


@pytest.mark.parametrize(
    ("pod", "path"),
    [
        (spec(hostNetwork=True), "spec.hostNetwork: True"),
        (spec(runtimeClassName="gvisor"), "spec.runtimeClassName"),
        (spec(ephemeralContainers=[{}]), "spec.ephemeralContainers"),
        (spec(os={"name": "windows"}), "spec.os: {'name': 'windows'}"),
        (spec(volumes=[{"name": "n", "nfs": {"server": "s"}}]), "spec.volumes[0].nfs"),
        (
            spec(volumes=[{"name": "h", "emptyDir": {"medium": "HugePages"}}]),
            "spec.volumes[0].emptyDir.medium: 'HugePages'",
        ),
        (
            spec(volumes=[{"name": "h", "hostPath": {"path": "/s", "type": "Socket"}}]),
            "spec.volumes[0].hostPath.type: 'Socket'",
        ),
        (
            spec(initContainers=[{**CONTAINER, "restartPolicy": "Always"}]),
            "spec.initContainers[0].restartPolicy",
        ),
        (with_container(lifecycle={"postStart": {}}), "spec.containers[1].lifecycle.postStart"),
        (with_container(livenessProbe={"grpc": {"port": 1}}), "spec.containers[1].livenessProbe.grpc"),
        (
            with_container(securityContext={"privileged": True}),
            "spec.containers[1].securityContext.privileged: True",
        ),
        (with_container(stdin=True), "spec.containers[1].stdin"),
        (with_container(volumeDevices=[{}]), "spec.containers[1].volumeDevices"),
        (
            with_container(env=[{"name": "A", "valueFrom": {"resourceFieldRef": {}}}]),
            "spec.containers[1].env[0].valueFrom.resourceFieldRef",
        ),
        (with_container(ports=[{"containerPort": 1, "hostPort": 2}]), "spec.containers[1].ports[0].hostPort"),
        (
            with_container(ports=[{"containerPort": 1, "protocol": "UDP"}]),
            "spec.containers[1].ports[0].protocol: 'UDP'",
        ),
        (
            with_container(volumeMounts=[{"name": "a", "mountPath": "/a", "subPathExpr": "$(A)"}]),
            "spec.containers[1].volumeMounts[0].subPathExpr",
        ),
        (with_container(tty=True), "spec.containers[1].tty"),
        (
            with_container(lifecycle={"stopSignal": "SIGINT"}),
            "spec.containers[1].lifecycle.stopSignal: 'SIGINT'",
        ),
        (
            with_container(env=[{"name": "A", "valueFrom": {"fileKeyRef": {}}}]),
            "spec.containers[1].env[0].valueFrom.fileKeyRef",
        ),
        (
            with_container(volumeMounts=[{"name": "a", "mountPath": "/a", "mountPropagation": "None"}]),
            "spec.containers[1].volumeMounts[0].mountPropagation",
        ),
        (
            with_container(volumeMounts=[{"name": "a", "mountPath": "/a", "recursiveReadOnly": "Enabled"}]),
            "spec.containers[1].volumeMounts[0].recursiveReadOnly: 'Enabled'",
        ),
    ],
)
def test_the_first_unsupported_field_is_named(pod: dict[str, Any], path: str) -> None:
    assert unsupported_field(pod) == path


@pytest.mark.parametrize("field", ["hostPID", "hostIPC", "dnsConfig", "resourceClaims", "resources"])
def test_fields_of_the_pod_that_the_readme_names_are_refused(field: str) -> None:
    assert (unsupported_field(spec(**{field: True})) or "").startswith(f"spec.{field}")


@pytest.mark.parametrize("field", ["seLinuxOptions", "sysctls", "supplementalGroupsPolicy"])
def test_security_settings_that_the_readme_names_are_refused(field: str) -> None:
    assert unsupported_field(spec(securityContext={field: "x"})) == f"spec.securityContext.{field}"


@pytest.mark.parametrize("source", ["csi", "ephemeral", "image", "nfs"])
def test_volumes_of_other_kinds_are_refused(source: str) -> None:
    assert unsupported_field(spec(volumes=[{"name": "v", source: {}}])) == f"spec.volumes[0].{source}"
