"""The lookup order, with programs that are empty executable files."""

from __future__ import annotations

from pathlib import Path

import pytest

from e2e.controlplane.binaries import (
    PROGRAMS,
    SERVERS,
    Binaries,
    BinariesMissing,
    ExistingCluster,
    asset_variable,
    find,
)
from e2e.controlplane.go_module import GoModule


def executable(path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("#!/bin/sh\n")
    path.chmod(0o755)
    return path


@pytest.fixture
def module() -> GoModule:
    return GoModule.own()


class Sources:
    """Every source at once, each of which a test may take away."""

    def __init__(self, directory: Path, module: GoModule) -> None:
        self.module = module
        self.environment = {
            "HOME": str(directory / "home"),
            "XDG_CACHE_HOME": str(directory / "cache"),
            "PATH": str(directory / "path"),
            "KUBEBUILDER_ASSETS": str(directory / "assets"),
            "USE_EXISTING_CLUSTER": "true",
        }
        for program in PROGRAMS:
            executable(directory / "assets" / program)
            named = executable(directory / "named" / program)
            self.environment[asset_variable(program)] = str(named)
        self.cached = executable(module.cached_binary(self.environment))
        self.kubeconfig = directory / "home" / ".kube" / "config"
        self.kubeconfig.parent.mkdir(parents=True)
        self.kubeconfig.write_text("{}")
        self.builds = 0

    def without(self, *names: str) -> None:
        for name in names:
            self.environment.pop(name)

    def without_named(self) -> None:
        self.without(*(asset_variable(program) for program in PROGRAMS))

    def build(self) -> Path:
        self.builds += 1
        return executable(self.cached)

    def find(self) -> Binaries | ExistingCluster:
        return find(self.environment, self.module, self.build)

    def binaries(self) -> Binaries:
        found = self.find()
        assert isinstance(found, Binaries)
        return found


@pytest.fixture
def sources(tmp_path: Path, module: GoModule) -> Sources:
    return Sources(tmp_path, module)


def test_an_existing_cluster_that_is_asked_for_comes_first(sources: Sources) -> None:
    named = (sources.environment["TEST_ASSET_KUBECTL"],)
    assert sources.find() == ExistingCluster(sources.kubeconfig, named)


def test_programs_named_one_by_one_come_second(sources: Sources, tmp_path: Path) -> None:
    sources.without("USE_EXISTING_CLUSTER")
    found = sources.binaries()
    assert {found.command(program) for program in PROGRAMS} == {
        (str(tmp_path / "named" / program),) for program in PROGRAMS
    }


def test_the_assets_folder_comes_third(sources: Sources, tmp_path: Path) -> None:
    sources.without("USE_EXISTING_CLUSTER")
    sources.without_named()
    assert sources.binaries().command("etcd") == (str(tmp_path / "assets" / "etcd"),)


def test_one_named_program_overrides_the_folder_for_that_program_only(
    sources: Sources, tmp_path: Path
) -> None:
    sources.without("USE_EXISTING_CLUSTER", "TEST_ASSET_ETCD")
    found = sources.binaries()
    assert found.command("etcd") == (str(tmp_path / "assets" / "etcd"),)
    assert found.command("kubectl") == (str(tmp_path / "named" / "kubectl"),)


def test_the_cache_comes_fourth_and_nothing_is_built(sources: Sources) -> None:
    sources.without("USE_EXISTING_CLUSTER", "KUBEBUILDER_ASSETS")
    sources.without_named()
    found = sources.binaries()
    assert found.command("kube-scheduler") == (str(sources.cached), "kube-scheduler")
    assert sources.builds == 0


def test_a_build_comes_last(sources: Sources) -> None:
    sources.without("USE_EXISTING_CLUSTER", "KUBEBUILDER_ASSETS")
    sources.without_named()
    sources.cached.unlink()
    assert sources.binaries().command("kubectl") == (str(sources.cached), "kubectl")
    assert sources.builds == 1


def test_where_building_is_out_of_the_question_the_failure_says_what_to_run(sources: Sources) -> None:
    sources.without("USE_EXISTING_CLUSTER", "KUBEBUILDER_ASSETS")
    sources.without_named()
    sources.cached.unlink()
    with pytest.raises(BinariesMissing, match=r"python -m e2e\.controlplane build.*KUBEBUILDER_ASSETS"):
        find(sources.environment, sources.module, None)


def test_an_asset_folder_without_controllers_names_what_it_lacks(sources: Sources, tmp_path: Path) -> None:
    sources.without("USE_EXISTING_CLUSTER")
    sources.without_named()
    (tmp_path / "assets" / "kube-scheduler").unlink()
    with pytest.raises(BinariesMissing, match="lacks kube-scheduler; name them by TEST_ASSET_KUBE_SCHEDULER"):
        sources.find()


def test_a_named_program_that_is_not_there_is_not_skipped(sources: Sources) -> None:
    sources.without("USE_EXISTING_CLUSTER")
    sources.environment["TEST_ASSET_ETCD"] = "/nonexistent/etcd"
    with pytest.raises(BinariesMissing, match="TEST_ASSET_ETCD=/nonexistent/etcd"):
        sources.find()


@pytest.mark.parametrize(
    ("present", "expected"),
    [
        pytest.param({"named", "path", "cache"}, "named", id="the named kubectl before the one on PATH"),
        pytest.param({"path", "cache"}, "path", id="the kubectl on PATH before the cached one"),
        pytest.param({"cache"}, "cache", id="the cached kubectl last"),
    ],
)
def test_kubectl_for_an_existing_cluster(
    sources: Sources, tmp_path: Path, present: set[str], expected: str
) -> None:
    if "named" not in present:
        sources.without_named()
    if "path" in present:
        executable(tmp_path / "path" / "kubectl")
    found = sources.find()
    assert isinstance(found, ExistingCluster)
    assert {
        "named": (str(tmp_path / "named" / "kubectl"),),
        "path": (str(tmp_path / "path" / "kubectl"),),
        "cache": (str(sources.cached), "kubectl"),
    }[expected] == found.kubectl


def test_an_existing_cluster_without_a_kubeconfig_says_what_to_set(sources: Sources) -> None:
    sources.kubeconfig.unlink()
    with pytest.raises(BinariesMissing, match=r"no kubeconfig .*\.kube/config; set KUBECONFIG"):
        sources.find()


@pytest.mark.parametrize("program", SERVERS)
def test_each_server_has_the_variable_that_envtest_would_use(program: str) -> None:
    expected = {
        "etcd": "TEST_ASSET_ETCD",
        "kube-apiserver": "TEST_ASSET_KUBE_APISERVER",
        "kube-controller-manager": "TEST_ASSET_KUBE_CONTROLLER_MANAGER",
        "kube-scheduler": "TEST_ASSET_KUBE_SCHEDULER",
    }
    assert asset_variable(program) == expected[program]
