from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from e2e.localnode.container_root import (
    ConfigError,
    ContainerSetup,
    closed_directories,
    interpreter_roots,
    join_spec,
    launch_spec,
)
from e2e.localnode.images import LocalImage
from e2e.localnode.isolation import Isolation
from e2e.localnode.volumes import Volume

FULL = Isolation(("mnt", "uts", "pid"), other_users=True)


def setup(tmp_path: Path, container: dict[str, Any] | None = None, **changes: Any) -> ContainerSetup:
    for name in ("log", "hosts"):
        (tmp_path / name).touch()
    (tmp_path / "volume").mkdir(exist_ok=True)
    fields: dict[str, Any] = {
        "pod": {"metadata": {"name": "p"}, "spec": changes.pop("spec", {})},
        "container": {"name": "c", **(container or {})},
        "image": LocalImage("i", path=("/image/bin",), env={"A": "image", "B": "image"}),
        "volumes": {"v": Volume(tmp_path / "volume")},
        "termination_log": tmp_path / "log",
        "hosts_file": tmp_path / "hosts",
        "isolation": FULL,
        "staging": tmp_path,
        "hidden": (),
        **changes,
    }
    return ContainerSetup(**fields)


def test_the_pod_s_variables_win_over_the_image_s_and_the_image_s_path_comes_first(tmp_path: Path) -> None:
    spec = launch_spec(setup(tmp_path), ["x"], {"B": "pod"})
    assert (spec["env"]["A"], spec["env"]["B"]) == ("image", "pod")
    assert spec["env"]["PATH"].startswith("/image/bin:/usr/local/sbin:")
    assert spec["hostname"] == "p"


@pytest.mark.parametrize(
    ("pod", "container", "image_user", "expected"),
    [
        pytest.param({}, {}, 0, None, id="nobody asked for a user"),
        pytest.param({"runAsUser": 5}, {}, 0, (5, 0, []), id="the pod's user"),
        pytest.param(
            {"runAsUser": 5}, {"runAsUser": 6, "runAsGroup": 7}, 0, (6, 7, []), id="the container's wins"
        ),
        pytest.param(
            {"fsGroup": 8, "supplementalGroups": [9]}, {"runAsUser": 6}, 0, (6, 0, [9, 8]), id="groups"
        ),
        pytest.param({}, {}, 65532, (65532, 0, []), id="the image's user"),
    ],
)
def test_identity(tmp_path: Path, pod: Any, container: Any, image_user: int, expected: Any) -> None:
    image = LocalImage("i", user=image_user)
    built = setup(tmp_path, {"securityContext": container}, spec={"securityContext": pod}, image=image)
    identity = launch_spec(built, ["x"], {})["identity"]
    found = (identity.get("uid"), identity.get("gid"), identity.get("groups"))
    assert found == (expected or (None, None, None))


def test_where_other_users_do_not_exist_the_user_is_not_changed(tmp_path: Path) -> None:
    built = setup(
        tmp_path, {"securityContext": {"runAsUser": 5}}, isolation=Isolation(("mnt",), other_users=False)
    )
    assert "uid" not in launch_spec(built, ["x"], {})["identity"]


def test_an_image_that_runs_as_root_is_refused_where_that_is_forbidden(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="image will run as root"):
        launch_spec(setup(tmp_path, {"securityContext": {"runAsNonRoot": True}}), ["x"], {})


def test_a_sub_path_is_made_in_its_volume_and_may_not_leave_it(tmp_path: Path) -> None:
    mount = {"name": "v", "mountPath": "/m", "subPath": "a/b"}
    spec = launch_spec(setup(tmp_path, {"volumeMounts": [mount]}), ["x"], {})
    assert ("bind", "/m", str(tmp_path / "volume" / "a" / "b"), "rw") in spec["operations"]
    with pytest.raises(ConfigError, match="leaves its volume"):
        launch_spec(setup(tmp_path, {"volumeMounts": [{**mount, "subPath": "../x"}]}), ["x"], {})


def test_joining_enters_the_namespaces_with_the_mounts_last(tmp_path: Path) -> None:
    spec = launch_spec(setup(tmp_path), ["x"], {"A": "1"})
    joined = join_spec(spec, 42, ["true"])
    assert (joined["join"], joined["namespaces"], joined["argv"]) == (42, ["pid", "uts", "mnt"], ["true"])
    assert joined["env"] == spec["env"]
    assert "operations" not in joined


def test_an_environment_is_visible_with_every_installation_that_its_interpreter_links_to(
    tmp_path: Path,
) -> None:
    real, alias, venv = tmp_path / "python-3.11.9", tmp_path / "python-3.11", tmp_path / "venv"
    for directory in (real, venv):
        (directory / "bin").mkdir(parents=True)
    (real / "bin" / "python3.11").touch()
    (real / "bin" / "python3").symlink_to("python3.11")
    alias.symlink_to(real)
    (venv / "bin" / "python3").symlink_to(alias / "bin" / "python3")
    assert interpreter_roots([str(venv / "bin")]) == [str(venv), str(alias), str(real)]


def test_a_directory_that_only_its_owner_may_pass_is_named_once_and_the_outermost(tmp_path: Path) -> None:
    first = next((each for each in reversed(tmp_path.parents) if not each.stat().st_mode & 0o001), None)
    home = tmp_path / "home"
    inner = home / "inner"
    (inner / "python" / "bin").mkdir(parents=True)
    (tmp_path / "open").mkdir()
    for directory, mode in ((tmp_path, 0o755), (home, 0o700), (inner, 0o700)):
        directory.chmod(mode)
    assert closed_directories([str(inner / "python"), str(inner)]) == [str(first or home)]
    assert closed_directories(["/usr/bin", str(tmp_path / "open")]) == ([str(first)] if first else [])
