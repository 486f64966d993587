"""Say which pod fields the local node understands, so that anything else fails instead of being ignored.

A table names every field that is implemented or knowingly accepted without being enforced (see README.md).
What is not in it, or has a value that it does not allow, makes the pod fail. Pure. It must never let an
unknown field pass.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

Rule = (
    Any  # True: any value · mapping: an object's fields · [rule]: a list · callable: is the value all right?
)


def _only(*values: object) -> Callable[[Any], bool]:
    return lambda value: value in values


_KEY_REF: Rule = {"name": True, "key": True, "optional": True}
_ITEMS: Rule = [{"key": True, "path": True, "mode": True}]
_FIELD_REF: Rule = {"apiVersion": True, "fieldPath": True}
_SECURITY: Rule = {
    "runAsUser": True,
    "runAsGroup": True,
    "runAsNonRoot": True,
    "seccompProfile": True,
    "appArmorProfile": True,
}
_HTTP_GET: Rule = {"path": True, "port": True, "host": True, "scheme": True, "httpHeaders": True}
_PROBE: Rule = {
    "httpGet": _HTTP_GET,
    "tcpSocket": {"port": True, "host": True},
    "exec": {"command": True},
    "initialDelaySeconds": True,
    "periodSeconds": True,
    "timeoutSeconds": True,
    "successThreshold": True,
    "failureThreshold": True,
    "terminationGracePeriodSeconds": True,
}
_CONTAINER: Rule = {
    "name": True,
    "image": True,
    "imagePullPolicy": True,
    "command": True,
    "args": True,
    "workingDir": True,
    "env": [
        {
            "name": True,
            "value": True,
            "valueFrom": {"fieldRef": _FIELD_REF, "configMapKeyRef": _KEY_REF, "secretKeyRef": _KEY_REF},
        }
    ],
    "envFrom": [
        {
            "prefix": True,
            "configMapRef": {"name": True, "optional": True},
            "secretRef": {"name": True, "optional": True},
        }
    ],
    "ports": [{"name": True, "containerPort": True, "protocol": _only("TCP")}],
    "resources": {"requests": True, "limits": True},
    "resizePolicy": True,
    "volumeMounts": [
        {
            "name": True,
            "mountPath": True,
            "subPath": True,
            "readOnly": True,
            "recursiveReadOnly": _only("Disabled", "IfPossible"),
        }
    ],
    "livenessProbe": _PROBE,
    "readinessProbe": _PROBE,
    "startupProbe": _PROBE,
    "lifecycle": {
        "preStop": {"exec": {"command": True}, "httpGet": _HTTP_GET, "sleep": {"seconds": True}},
        "stopSignal": _only(),
    },
    "terminationMessagePath": True,
    "terminationMessagePolicy": True,
    "securityContext": {
        **_SECURITY,
        "allowPrivilegeEscalation": True,
        "capabilities": {"add": True, "drop": True},
        "readOnlyRootFilesystem": True,
        "privileged": _only(False),
    },
}
_PROJECTION: Rule = {
    "serviceAccountToken": {"audience": True, "expirationSeconds": True, "path": True},
    "configMap": {"name": True, "items": _ITEMS, "optional": True},
    "secret": {"name": True, "items": _ITEMS, "optional": True},
    "downwardAPI": {"items": [{"path": True, "fieldRef": _FIELD_REF, "mode": True}]},
}
_VOLUME: Rule = {
    "name": True,
    "configMap": {"name": True, "items": _ITEMS, "defaultMode": True, "optional": True},
    "secret": {"secretName": True, "items": _ITEMS, "defaultMode": True, "optional": True},
    "emptyDir": {"medium": _only("", "Memory"), "sizeLimit": True},
    "hostPath": {
        "path": True,
        "type": _only("", "Directory", "DirectoryOrCreate", "File", "FileOrCreate"),
    },
    "persistentVolumeClaim": {"claimName": True, "readOnly": True},
    "projected": {"sources": [_PROJECTION], "defaultMode": True},
    "downwardAPI": {"items": _PROJECTION["downwardAPI"]["items"], "defaultMode": True},
}
_NODE_EXPRESSION: Rule = {"key": True, "operator": True, "values": True}
_NODE_TERM: Rule = {"matchExpressions": [_NODE_EXPRESSION], "matchFields": [_NODE_EXPRESSION]}
_NODE_AFFINITY: Rule = {
    "preferredDuringSchedulingIgnoredDuringExecution": [{"weight": True, "preference": _NODE_TERM}],
    "requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": [_NODE_TERM]},
}
POD_SPEC: Rule = {
    "containers": [_CONTAINER],
    "initContainers": [_CONTAINER],
    "volumes": [_VOLUME],
    "restartPolicy": True,
    "terminationGracePeriodSeconds": True,
    "activeDeadlineSeconds": True,
    "automountServiceAccountToken": True,
    "serviceAccount": True,
    "serviceAccountName": True,
    "enableServiceLinks": True,
    "readinessGates": True,
    "hostname": True,
    "hostAliases": True,
    "hostNetwork": _only(False),
    "hostPID": _only(False),
    "hostIPC": _only(False),
    "hostUsers": _only(True),
    "shareProcessNamespace": _only(False),
    "setHostnameAsFQDN": _only(False),
    "os": _only({"name": "linux"}),
    "securityContext": {
        **_SECURITY,
        "fsGroup": True,
        "fsGroupChangePolicy": True,
        "supplementalGroups": True,
    },
    # The scheduler's and the API server's business; nothing to do on a node:
    "affinity": {"nodeAffinity": _NODE_AFFINITY, "podAffinity": True, "podAntiAffinity": True},
    "dnsPolicy": True,
    "imagePullSecrets": True,
    "nodeName": True,
    "nodeSelector": True,
    "overhead": _only({}),
    "preemptionPolicy": True,
    "priority": True,
    "priorityClassName": True,
    "schedulerName": True,
    "schedulingGates": True,
    "subdomain": True,
    "tolerations": True,
    "topologySpreadConstraints": True,
}


def unsupported_field(spec: Mapping[str, Any]) -> str | None:
    """Return the path (and value, where that matters) of the first field that is not implemented."""
    return _search(POD_SPEC, spec, "spec")


def _search(rule: Rule, value: Any, path: str) -> str | None:
    if rule is True or value is None:
        return None
    if callable(rule):
        return None if rule(value) else f"{path}: {value!r}"
    if isinstance(rule, list):
        entries = ((rule[0], entry, f"{path}[{index}]") for index, entry in enumerate(value))
    else:
        unknown = sorted(set(value) - set(rule))
        if unknown:
            return f"{path}.{unknown[0]}"
        entries = ((rule[key], entry, f"{path}.{key}") for key, entry in value.items())
    return next((found for entry in entries if (found := _search(*entry))), None)
