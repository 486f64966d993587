"""The pinned versions move in step, and the cache key follows every input."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import pytest

from e2e.controlplane.go_module import GoModule
from e2e.controlplane.go_toolchain import find_go, pinned_release


def copy_of_module(directory: Path) -> GoModule:
    for name in ("main.go", "go.mod", "go.sum"):
        shutil.copy(GoModule.own().directory / name, directory / name)
    return GoModule(directory)


def test_every_staging_module_is_replaced_by_the_release_of_kubernetes() -> None:
    module = GoModule.own()
    text = (module.directory / "go.mod").read_text()
    expected = module.kubernetes_version.replace("v1.", "v0.")
    replaced = dict(re.findall(r"^\t(k8s\.io/\S+) => \1 (v\S+)$", text, re.MULTILINE))
    required = dict(re.findall(r"^\t(k8s\.io/\S+) (v\S+)", text, re.MULTILINE))
    assert len(replaced) == 33
    assert set(replaced.values()) == {expected}
    assert required["k8s.io/component-base"] == required["k8s.io/kubectl"] == expected


def test_the_etcd_release_is_the_one_that_kubernetes_asks_for() -> None:
    text = (GoModule.own().directory / "go.mod").read_text()
    assert set(re.findall(r"go\.etcd\.io/etcd/(?:server|client/v3|api)\S* (v3\.\S+)", text)) == {"v3.6.8"}


def test_the_stamp_is_the_pinned_release() -> None:
    module = GoModule.own()
    linker = module.flags[-1]
    assert f"gitVersion={module.kubernetes_version} " in linker
    assert "gitMajor=1 " in linker
    assert f"gitMinor={module.kubernetes_version.split('.')[1]} " in linker


@pytest.mark.parametrize("name", ["main.go", "go.mod", "go.sum"])
def test_a_changed_input_is_another_cache_entry(tmp_path: Path, name: str) -> None:
    module = copy_of_module(tmp_path)
    before = module.key
    with (tmp_path / name).open("a") as file:
        file.write("\n")
    assert before == GoModule.own().key
    assert module.key != before


@pytest.mark.parametrize(
    ("environment", "expected"),
    [
        pytest.param({"XDG_CACHE_HOME": "/c", "HOME": "/h"}, "/c/stowage", id="XDG_CACHE_HOME wins"),
        pytest.param({"HOME": "/h"}, "/h/.cache/stowage", id="the default is below HOME"),
        pytest.param({"XDG_CACHE_HOME": "", "HOME": "/h"}, "/h/.cache/stowage", id="empty means unset"),
    ],
)
def test_the_binary_lies_in_the_cache(environment: dict[str, str], expected: str) -> None:
    module = GoModule.own()
    path = module.cached_binary(environment)
    assert path == Path(expected) / "controlplane" / module.key / "stowage-controlplane"


def test_the_installable_go_is_new_enough() -> None:
    release = tuple(int(part) for part in pinned_release().split("."))
    assert release >= GoModule.own().go_version


def test_a_go_that_is_too_old_is_passed_over(tmp_path: Path) -> None:
    go = tmp_path / "bin" / "go"
    go.parent.mkdir()
    go.write_text("#!/bin/sh\necho go1.21.3\n")
    go.chmod(0o755)
    environment = {"PATH": str(go.parent), "XDG_CACHE_HOME": str(tmp_path)}
    assert find_go(environment, (1, 21, 0)) == go
    assert find_go(environment, (1, 26, 0)) != go
