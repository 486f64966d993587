from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from e2e.localnode.environment import (
    Lookups,
    MissingReference,
    container_environment,
    decoded,
    expand,
    expanded_command,
    field_value,
)

POD: dict[str, Any] = {
    "metadata": {
        "name": "p",
        "namespace": "ns",
        "uid": "u-1",
        "labels": {"app.kubernetes.io/name": "vllm", "b": 'quo"te'},
        "annotations": {},
    },
    "spec": {"nodeName": "n1", "serviceAccountName": "robot"},
    "status": {"podIP": "10.244.0.9", "hostIP": "127.0.0.1"},
}
LOOKUPS = Lookups(POD, {"cm": {"key": "value", "0bad": "x", "also.good": "y"}}, {"sec": {"token": "t"}})


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        pytest.param("plain", "plain", id="text without a reference stays"),
        pytest.param("$(A)/$(A)", "1/1", id="every reference is replaced"),
        pytest.param("$(MISSING)", "$(MISSING)", id="an unknown reference stays as written"),
        pytest.param("$$(A)", "$(A)", id="a doubled dollar escapes"),
        pytest.param("$$$(A)", "$1", id="an escape before a reference"),
        pytest.param("$A ${A}", "$A ${A}", id="the shell's forms mean nothing"),
        pytest.param("cost: 5$", "cost: 5$", id="a dollar at the end stays"),
        pytest.param("$(A", "$(A", id="an open parenthesis stays"),
    ],
)
def test_expand(text: str, expected: str) -> None:
    assert expand(text, {"A": "1"}) == expected


@given(st.text(alphabet=st.characters(exclude_characters="$")))
def test_text_without_a_dollar_is_never_changed(text: str) -> None:
    assert expand(text, {"A": "1", "": "2"}) == text


@pytest.mark.parametrize(
    ("container", "expected"),
    [
        pytest.param(
            {"env": [{"name": "A", "value": "1"}, {"name": "B", "value": "$(A)2"}]},
            {"A": "1", "B": "12"},
            id="a variable may refer to an earlier one",
        ),
        pytest.param(
            {"env": [{"name": "B", "value": "$(A)"}, {"name": "A", "value": "1"}]},
            {"A": "1", "B": "$(A)"},
            id="a variable may not refer to a later one",
        ),
        pytest.param({"env": [{"name": "E"}]}, {"E": ""}, id="a variable without a value is empty"),
        pytest.param(
            {"env": [{"name": "I", "valueFrom": {"fieldRef": {"fieldPath": "status.podIP"}}}]},
            {"I": "10.244.0.9"},
            id="a field of the pod",
        ),
        pytest.param(
            {"env": [{"name": "T", "valueFrom": {"secretKeyRef": {"name": "sec", "key": "token"}}}]},
            {"T": "t"},
            id="a key of a Secret",
        ),
        pytest.param(
            {
                "env": [
                    {
                        "name": "T",
                        "valueFrom": {"configMapKeyRef": {"name": "no", "key": "k", "optional": True}},
                    }
                ]
            },
            {},
            id="an optional key that is missing defines nothing",
        ),
        pytest.param(
            {"envFrom": [{"configMapRef": {"name": "cm"}, "prefix": "X_"}]},
            {"X_key": "value", "X_0bad": "x", "X_also.good": "y"},
            id="all keys of a ConfigMap with a prefix",
        ),
        pytest.param(
            {"envFrom": [{"configMapRef": {"name": "cm"}}]},
            {"key": "value", "also.good": "y"},
            id="keys that are no variable names are left out",
        ),
        pytest.param(
            {"envFrom": [{"secretRef": {"name": "sec"}}], "env": [{"name": "token", "value": "mine"}]},
            {"token": "mine"},
            id="env wins over envFrom",
        ),
    ],
)
def test_container_environment(container: dict[str, Any], expected: dict[str, str]) -> None:
    assert container_environment(container, {}, LOOKUPS) == expected


@pytest.mark.parametrize(
    ("container", "sentence"),
    [
        pytest.param(
            {"envFrom": [{"secretRef": {"name": "no"}}]}, 'secret "no" not found', id="a missing Secret"
        ),
        pytest.param(
            {"env": [{"name": "A", "valueFrom": {"configMapKeyRef": {"name": "cm", "key": "no"}}}]},
            "couldn't find key no in configmap cm",
            id="a missing key",
        ),
    ],
)
def test_missing_references_are_named(container: dict[str, Any], sentence: str) -> None:
    with pytest.raises(MissingReference, match=sentence):
        container_environment(container, {}, LOOKUPS)


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("metadata.name", "p"),
        ("metadata.namespace", "ns"),
        ("metadata.uid", "u-1"),
        ("spec.nodeName", "n1"),
        ("spec.serviceAccountName", "robot"),
        ("status.hostIP", "127.0.0.1"),
        ("status.podIPs", "10.244.0.9"),
        ("metadata.labels['app.kubernetes.io/name']", "vllm"),
        ("metadata.annotations['none']", ""),
        ("metadata.labels", 'app.kubernetes.io/name="vllm"\nb="quo\\"te"'),
    ],
)
def test_field_value(path: str, expected: str) -> None:
    assert field_value(POD, path) == expected


def test_an_unknown_field_path_is_refused() -> None:
    with pytest.raises(ValueError, match=r"status\.phase: there is no such field"):
        field_value(POD, "status.phase")


@pytest.mark.parametrize(
    ("container", "expected"),
    [
        pytest.param({}, ["entry", "x"], id="the image's command alone"),
        pytest.param({"args": ["$(A)"]}, ["entry", "x", "1"], id="arguments follow the image's command"),
        pytest.param({"command": ["c", "$(A)"]}, ["c", "1"], id="a command replaces the image's"),
        pytest.param({"command": ["c"], "args": ["a"]}, ["c", "a"], id="command and arguments"),
    ],
)
def test_expanded_command(container: dict[str, Any], expected: list[str]) -> None:
    assert expanded_command(container, ["entry", "x"], {"A": "1"}) == expected


def test_secrets_are_decoded() -> None:
    assert decoded({"a": "aGk="}) == {"a": "hi"}
    assert decoded(None) == {}
