"""Environments are made once, whole, from the locks alone, and say in one sentence why they cannot be made."""

from __future__ import annotations

import re
import subprocess
import sys
import threading
import tomllib
from pathlib import Path
from typing import Any

import pytest

from tools import bootstrap, cache, checkout, lock, uv

ROOT = Path(__file__).resolve().parents[2]
LOCKS = sorted((ROOT / "requirements").glob("*.txt"))

# Stands for uv: `venv … DIR` makes a folder, `pip install` counts itself in it or fails.
FAKE_UV = """#!/bin/sh
for last; do :; done
if [ "$1" = venv ]; then mkdir -p "$last/bin"; ln -s "$(command -v python3)" "$last/bin/python"; exit 0; fi
[ -e "{refuse}" ] && echo "no such wheel" && exit 3
echo installed >> "{count}"
"""


@pytest.fixture
def caches(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    (tmp_path / "cache" / "stowage").mkdir(parents=True)
    fake = tmp_path / "uv"
    fake.write_text(FAKE_UV.format(refuse=tmp_path / "refuse", count=tmp_path / "count"))
    fake.chmod(0o755)
    monkeypatch.setattr(uv, "executable", lambda: fake)
    return tmp_path


def environment(caches: Path, **changes: Any) -> bootstrap.Environment:
    (caches / "lock.txt").write_text("a==1\n")
    arguments: dict[str, Any] = {
        "name": "venv",
        "lock": caches / "lock.txt",
        "depends_on": (),
        "disk_bytes": 1,
        "expected": "soon",
    }
    return bootstrap.Environment(**(arguments | changes))


def installs(caches: Path) -> int:
    count = caches / "count"
    return len(count.read_text().splitlines()) if count.exists() else 0


def test_environment_is_made_once(caches: Path, capfd: pytest.CaptureFixture[str]) -> None:
    wanted = environment(caches)
    assert bootstrap.ensure(wanted) == bootstrap.ensure(wanted) == wanted.path
    assert installs(caches) == 1
    captured = capfd.readouterr()
    assert captured.out == ""
    assert "soon" in captured.err


def test_concurrent_runs_make_it_once(caches: Path) -> None:
    wanted = environment(caches)
    threads = [threading.Thread(target=bootstrap.ensure, args=(wanted,)) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert installs(caches) == 1
    assert wanted.stamp.exists()


def test_half_made_environment_is_made_again(caches: Path) -> None:
    wanted = environment(caches)
    (caches / "refuse").touch()
    with pytest.raises(SystemExit, match=r"no such wheel\nthis step failed: .* pip install"):
        bootstrap.ensure(wanted)
    assert not wanted.stamp.exists()
    (wanted.path / "left-over").touch()
    (caches / "refuse").unlink()
    bootstrap.ensure(wanted)
    assert not (wanted.path / "left-over").exists()


@pytest.mark.parametrize(
    "change",
    [
        pytest.param(
            {"depends_on": ("other checkout",)}, id="another checkout has an environment of its own"
        ),
        pytest.param({"name": "vllm"}, id="so has another kind"),
        pytest.param({"lock": ROOT / "requirements" / "uv.txt"}, id="and another lock"),
    ],
)
def test_path_depends_on_what_goes_in(change: dict, caches: Path) -> None:
    assert environment(caches, **change).path != environment(caches).path
    assert environment(caches).path == environment(caches).path


def test_full_disk_is_said_before_anything_is_written(caches: Path) -> None:
    wanted = environment(caches, disk_bytes=1 << 60)
    with pytest.raises(SystemExit, match=r"needs 1073741824 GiB of free disk and .* XDG_CACHE_HOME"):
        bootstrap.ensure(wanted)
    assert not wanted.path.exists()


def test_first_import_must_work(caches: Path) -> None:
    with pytest.raises(SystemExit, match="No module named 'no_such_engine'"):
        bootstrap.ensure(environment(caches, modules=("no_such_engine",)))
    assert bootstrap.ensure(environment(caches, modules=("json", "csv"))).exists()


def test_old_python_gets_a_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bootstrap, "python_version", lambda: (3, 10))
    monkeypatch.setattr(sys, "argv", ["bootstrap", "venv"])
    with pytest.raises(SystemExit, match=r"Python 3\.10 .* not supported: run this with Python 3\.11"):
        bootstrap.main()


def test_relative_cache_folder_is_ignored(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", "relative")
    assert cache.root() == Path.home() / ".cache" / "stowage"


def test_settings_of_pip_reach_uv(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("UV_DEFAULT_INDEX", "UV_INDEX_URL"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("PIP_INDEX_URL", "https://mirror.invalid/simple")
    monkeypatch.setenv("PYTHONPATH", "/somewhere")
    env = uv.environment()
    assert env["UV_DEFAULT_INDEX"] == "https://mirror.invalid/simple"
    assert "PYTHONPATH" not in env
    monkeypatch.setenv("UV_DEFAULT_INDEX", "https://own.invalid/simple")
    assert uv.environment()["UV_DEFAULT_INDEX"] == "https://own.invalid/simple"


def test_linked_checkout_runs_from_the_working_tree(tmp_path: Path) -> None:
    tree, made = tmp_path / "a tree", tmp_path / "made"
    (tree / "operator" / "product").mkdir(parents=True)
    (tree / "operator" / "product" / "__init__.py").write_text("def main(): print('first')\n")
    (made / "lib" / "python3.11" / "site-packages").mkdir(parents=True)
    (made / "bin").mkdir()
    site = made / "lib" / "python3.11" / "site-packages"
    python = made / "bin" / "python"
    python.write_text(
        f'#!/bin/sh\nexec "{sys.executable}" -c \'import site, sys; site.addsitedir("{site}"); \
sys.argv = sys.argv[1:]; exec(open(sys.argv[0]).read())\' "$@"\n'
    )
    python.chmod(0o755)
    project = {"name": "product", "version": "1.2", "scripts": {"tool": "product:main"}}
    checkout.link(made, tree, project)
    assert (
        subprocess.run([made / "bin" / "tool"], capture_output=True, text=True, check=True).stdout
        == "first\n"
    )
    (tree / "operator" / "product" / "__init__.py").write_text("def main(): print('edited')\n")
    assert (
        subprocess.run([made / "bin" / "tool"], capture_output=True, text=True, check=True).stdout
        == "edited\n"
    )
    assert "Version: 1.2" in (site / "product-1.2.dist-info" / "METADATA").read_text()


@pytest.mark.parametrize("path", LOCKS, ids=lambda path: path.name)
def test_locks_name_no_address_and_no_machine(path: Path) -> None:
    text = path.read_text()
    assert not re.search(r"://|--index|--find-links|file:|/root|/home|/work", text)


@pytest.mark.parametrize("name", list(lock.LOCKS))
def test_every_pin_of_a_lock_has_a_hash(name: str) -> None:
    text = (ROOT / "requirements" / lock.LOCKS[name].output).read_text()
    pins = re.findall(r"^[a-zA-Z0-9][^\s=]*==\S+.*$", text, re.MULTILINE)
    assert pins
    assert all(pin.endswith("\\") for pin in pins)
    assert "--hash=sha256:" in text


def test_locks_have_what_the_project_asks_for() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]

    def names(text: str) -> set[str]:
        found = re.findall(r"^([A-Za-z0-9._-]+)", text, re.MULTILINE)
        return {re.sub(r"[-_.]+", "-", name).lower() for name in found}

    asked = {name for line in project["dependencies"] for name in names(line)}
    developing = {name for line in project["optional-dependencies"]["dev"] for name in names(line)}
    operator, dev = (names((ROOT / "requirements" / f).read_text()) for f in ("operator.txt", "dev.txt"))
    assert asked <= operator
    assert asked | developing <= dev
    assert not developing & {"pytest", "mypy"} & operator


def test_vllm_lock_holds_the_engine_and_not_what_it_does_not_need() -> None:
    text = (ROOT / "requirements" / "vllm.txt").read_text()
    assert "\nvllm-cpu==0.32.0 \\" in text
    assert "\ntorch==2.13.0 \\" in text
    assert not re.search(r"^torch(vision|audio|codec)==", text, re.MULTILINE)
