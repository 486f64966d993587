"""What the demo starts is on disk at once, so that `make down` ends it also after the demo was killed."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from e2e.controlplane.processes import spawn
from e2e.demo.processes_record import ProcessesRecord
from e2e.stack.service import Service


@pytest.fixture
def service(tmp_path: Path) -> Iterator[Service]:
    log = tmp_path / "log"
    command = [sys.executable, "-c", "import time; print('up', flush=True); time.sleep(600)"]
    made = Service("sleeper", command, {}, log)
    made.process = spawn(command, log, os.environ)
    yield made
    made.kill()


def test_a_recorded_process_is_ended_by_another_record(tmp_path: Path, service: Service) -> None:
    ProcessesRecord(tmp_path).add(service)
    said: list[str] = []
    assert ProcessesRecord(tmp_path).end_all(said.append) == 1
    assert said == ["Stopping sleeper"]
    assert not service.is_running
    assert ProcessesRecord(tmp_path).end_all(said.append) == 0


def test_a_process_that_only_has_the_pid_is_left_alone(tmp_path: Path, service: Service) -> None:
    record = ProcessesRecord(tmp_path)
    record.add(service)
    path = next(tmp_path.glob("*.json"))
    entries = json.loads(path.read_text())
    entries[0]["started_ticks"] += 1
    path.write_text(json.dumps(entries))
    assert record.end_all(lambda _: None) == 0
    assert service.is_running


def test_a_service_that_never_started_is_not_recorded(tmp_path: Path) -> None:
    record = ProcessesRecord(tmp_path)
    record.add(Service("none", ["true"], {}, tmp_path / "log"))
    assert record.end_all(lambda _: None) == 0


def test_the_processes_of_a_restart_are_all_recorded(tmp_path: Path, service: Service) -> None:
    record = ProcessesRecord(tmp_path)
    record.add(service)
    first = service.process
    service.process = spawn(service.command, service.log, os.environ)
    record.add(service)
    assert record.end_all(lambda _: None) == 2
    assert first is not None
    assert not first.is_running()
