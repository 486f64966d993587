from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from e2e.localnode import volumes
from e2e.localnode.environment import MissingReference
from e2e.localnode.volume_data import VolumeFile, downward_files, keyed_files
from e2e.localnode.volumes import memory_token, remove_memory

DATA = {"a": b"1", "b": b"2"}


@pytest.mark.parametrize(
    ("source", "data", "expected"),
    [
        pytest.param({}, DATA, [VolumeFile("a", b"1", 0o644), VolumeFile("b", b"2", 0o644)], id="all keys"),
        pytest.param(
            {"items": [{"key": "b", "path": "x/y", "mode": 0o400}]},
            DATA,
            [VolumeFile("x/y", b"2", 0o400)],
            id="chosen keys with paths and modes",
        ),
        pytest.param({"optional": True}, None, [], id="an optional object that does not exist"),
        pytest.param(
            {"optional": True, "items": [{"key": "c", "path": "c"}]}, DATA, [], id="an optional key"
        ),
    ],
)
def test_keyed_files(
    source: dict[str, Any], data: dict[str, bytes] | None, expected: list[VolumeFile]
) -> None:
    assert keyed_files(source, data, 0o644, "configmap") == expected


@pytest.mark.parametrize(
    ("source", "data", "sentence"),
    [
        pytest.param({}, None, "configmap x not found", id="a missing object"),
        pytest.param(
            {"items": [{"key": "c", "path": "c"}]}, DATA, "non-existent config key: c", id="a missing key"
        ),
    ],
)
def test_what_is_missing_is_named(
    source: dict[str, Any], data: dict[str, bytes] | None, sentence: str
) -> None:
    with pytest.raises(MissingReference, match=sentence):
        keyed_files(source, data, 0o644, "configmap x")


@pytest.mark.parametrize("path", ["../up", "/absolute", "a/../../b"])
def test_a_path_that_leaves_the_volume_is_refused(path: str) -> None:
    with pytest.raises(ValueError, match="leaves its volume"):
        keyed_files({"items": [{"key": "a", "path": path}]}, DATA, 0o644, "configmap")


@pytest.mark.parametrize(
    ("name", "abandoned_only", "stays"),
    [
        pytest.param("stowage-localnode-1-999999999999", True, False, id="its process is gone"),
        pytest.param(f"stowage-localnode-{memory_token()}", True, True, id="its process is this one"),
        pytest.param(f"stowage-localnode-{memory_token()}", False, False, id="this process ends"),
        pytest.param("stowage-localnode-other", True, True, id="a name that nobody here gives"),
        pytest.param("psm_1234", True, True, id="somebody else's"),
    ],
)
def test_memory_volumes_of_processes_that_are_gone_are_removed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, abandoned_only: bool, stays: bool
) -> None:
    monkeypatch.setattr(volumes, "SHARED_MEMORY", tmp_path)
    (tmp_path / name / "uid" / "shm").mkdir(parents=True)
    remove_memory(abandoned_only=abandoned_only)
    assert (tmp_path / name).exists() is stays


def test_downward_files() -> None:
    pod = {"metadata": {"name": "p", "namespace": "n", "uid": "u"}, "spec": {}}
    items = [{"path": "name", "fieldRef": {"fieldPath": "metadata.name"}}]
    assert downward_files(items, pod, 0o600) == [VolumeFile("name", b"p", 0o600)]
