"""Summaries of checkpoints: from a folder and from a Hub, as the inspection pod makes them."""

from __future__ import annotations

import json
import os
import signal
import struct
import subprocess
import sys
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from e2e.hub import Fault, Hub
from e2e.tinymodel import TinyModel
from stowage_runtime.checkpoint_source import FolderSource, HubSource
from stowage_runtime.contract import CheckpointSummary, Termination
from stowage_runtime.failures import AgentFailure
from stowage_runtime.inspection import inspect_checkpoint, open_source
from stowage_runtime.safetensors_header import HeaderError, read_header

TOKEN = "hf_secretsecretsecret"
MODEL = TinyModel(num_hidden_layers=3, shards=2)


@pytest.fixture
def models(tmp_path: Path) -> Path:
    root = tmp_path / "models"
    MODEL.write(root / "org" / "tiny")
    return root


@pytest.fixture
def hub(models: Path) -> Iterator[Hub]:
    with Hub(models) as hub:
        yield hub


def header_of(content: bytes) -> Callable[[int, int], bytes]:
    return lambda offset, length: content[offset : offset + length]


def safetensors(header: Any) -> bytes:
    text = json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text


def test_a_folder_is_summarised_to_the_byte(models: Path) -> None:
    folder = models / "org" / "tiny"
    summary = inspect_checkpoint(FolderSource(str(folder)), "pvc://claim/tiny")
    assert summary.source == "pvc://claim/tiny"
    assert summary.revision is None
    assert summary.total_bytes == MODEL.weight_bytes
    assert summary.files == 2
    assert summary.config == json.loads((folder / "config.json").read_text())
    names = {name for group in summary.tensors for name in group.names()}
    index = json.loads((folder / "model.safetensors.index.json").read_text())
    assert names == set(index["weight_map"])
    assert any(group.indices == ("0-2",) for group in summary.tensors)


def test_the_hub_gives_the_same_by_range_requests(hub: Hub, models: Path) -> None:
    source = open_source("hf://org/tiny", "main", {"HF_ENDPOINT": hub.endpoint})
    summary = inspect_checkpoint(source, "hf://org/tiny")
    local = inspect_checkpoint(FolderSource(str(models / "org" / "tiny")), "hf://org/tiny")
    assert summary.tensors == local.tensors
    assert summary.total_bytes == local.total_bytes
    assert summary.revision is not None
    assert len(summary.revision) == 40
    parts = [request.status for request in hub.requests if request.path.endswith(".safetensors")]
    assert parts
    assert set(parts) == {206}


def test_the_quantisation_beside_the_weights_is_kept(models: Path) -> None:
    content = {"quantization": {"quant_algo": "FP8"}}
    (models / "org" / "tiny" / "hf_quant_config.json").write_text(json.dumps(content))
    summary = inspect_checkpoint(FolderSource(str(models / "org" / "tiny")), "x")
    assert summary.quantization == content


@pytest.mark.parametrize(
    ("token", "reason"),
    [
        pytest.param(TOKEN, None, id="the right token opens it"),
        pytest.param("hf_wrongwrongwrong", "ModelAccessDenied", id="another token does not"),
        pytest.param(None, "ModelAccessDenied", id="no token does not"),
    ],
)
def test_a_gated_model_needs_its_token(hub: Hub, token: str | None, reason: str | None) -> None:
    hub.set_fault("org/tiny", Fault(kind="gated", tokens=(TOKEN,)))
    environment = {"HF_ENDPOINT": hub.endpoint, **({"HF_TOKEN": token} if token else {})}
    source = HubSource("org/tiny", "main", environment)
    if reason is None:
        assert inspect_checkpoint(source, "x").total_bytes == MODEL.weight_bytes
    else:
        with pytest.raises(AgentFailure) as caught:
            inspect_checkpoint(source, "x")
        assert caught.value.termination.reason == reason


@pytest.mark.parametrize(
    ("fault", "reason"),
    [
        pytest.param(Fault(kind="not_found"), "ModelNotFound", id="no such repository"),
        pytest.param(Fault(kind="unauthorized"), "ModelAccessDenied", id="an invalid token"),
        pytest.param(Fault(kind="rate_limited"), "HubRateLimited", id="too many requests"),
        pytest.param(Fault(kind="server_error"), "HubRateLimited", id="a server error"),
    ],
)
def test_refusals_of_the_hub_have_reasons(hub: Hub, fault: Fault, reason: str) -> None:
    hub.set_fault("org/tiny", fault)
    with pytest.raises(AgentFailure) as caught:
        HubSource("org/tiny", "main", {"HF_ENDPOINT": hub.endpoint})
    assert caught.value.termination.reason == reason


def test_an_unreachable_hub_has_its_reason(hub: Hub) -> None:
    hub.stop()
    with pytest.raises(AgentFailure) as caught:
        HubSource("org/tiny", "main", {"HF_ENDPOINT": hub.endpoint})
    assert caught.value.termination.reason == "HubUnreachable"


def break_file(name: str, content: bytes | None) -> Callable[[Path], None]:
    def change(folder: Path) -> None:
        if content is None:
            (folder / name).unlink()
        else:
            (folder / name).write_bytes(content)

    return change


SHARD = "model-00001-of-00002.safetensors"


@pytest.mark.parametrize(
    ("change", "reason", "words"),
    [
        pytest.param(
            break_file("config.json", None), "ModelNotFound", "has no config.json", id="no configuration"
        ),
        pytest.param(
            break_file("config.json", b"{"),
            "ModelFetchFailed",
            "config.json is not valid JSON",
            id="half of it",
        ),
        pytest.param(break_file("config.json", b"[]"), "ModelFetchFailed", "is no JSON object", id="a list"),
        pytest.param(break_file(SHARD, None), "ModelFetchFailed", f"lacks {SHARD}", id="a missing file"),
        pytest.param(break_file(SHARD, b"abc"), "ModelFetchFailed", "shorter than eight bytes", id="a stump"),
        pytest.param(
            break_file(SHARD, b"\xff" * 16), "ModelFetchFailed", "no safetensors file", id="other bytes"
        ),
        pytest.param(
            break_file(SHARD, safetensors({"w": {"dtype": "F7", "shape": [1]}})),
            "ModelFetchFailed",
            "dtype is F7",
            id="an unknown type",
        ),
    ],
)
def test_a_broken_checkpoint_gets_a_sentence(
    models: Path, change: Callable[[Path], None], reason: str, words: str
) -> None:
    folder = models / "org" / "tiny"
    change(folder)
    with pytest.raises(AgentFailure) as caught:
        inspect_checkpoint(FolderSource(str(folder)), "pvc://claim/tiny")
    assert caught.value.termination.reason == reason
    assert words in caught.value.termination.message


def test_a_folder_without_weights_is_refused(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(AgentFailure, match="has no safetensors files"):
        inspect_checkpoint(FolderSource(str(tmp_path)), "x")


@pytest.mark.parametrize(
    ("source", "words"),
    [
        pytest.param("s3://bucket", "must be hf://org/name or an absolute path", id="another scheme"),
        pytest.param("/no/such/folder", "There is no folder", id="no folder"),
    ],
)
def test_a_bad_source_gets_a_sentence(source: str, words: str) -> None:
    with pytest.raises(AgentFailure, match=words):
        open_source(source, "main", {})


@pytest.mark.parametrize(
    ("content", "words"),
    [
        pytest.param(b"", "shorter than eight bytes", id="nothing"),
        pytest.param(struct.pack("<Q", 50) + b"{}", "2 of 50 bytes", id="cut off"),
        pytest.param(struct.pack("<Q", 2) + b"[]", "no JSON object", id="a list"),
        pytest.param(struct.pack("<Q", 2) + b"{{", "not JSON", id="no JSON"),
        pytest.param(safetensors({"w": {"shape": [1]}}), "w has no dtype", id="no type"),
        pytest.param(
            safetensors({"w": {"dtype": "F32", "shape": [-1]}}), "has the shape [-1]", id="a bad shape"
        ),
    ],
)
def test_a_bad_header_gets_a_sentence(content: bytes, words: str) -> None:
    with pytest.raises(HeaderError) as caught:
        read_header(header_of(content))
    assert words in str(caught.value)


def test_the_file_s_own_notes_are_no_tensors() -> None:
    content = safetensors({"__metadata__": {"format": "pt"}, "w": {"dtype": "F32", "shape": [2, 3]}})
    assert read_header(header_of(content)) == {"w": ("F32", (2, 3))}


class InspectionPod:
    """The agent's inspect command as a process."""

    def __init__(self, zipapp: Path, folder: Path, port: int, *arguments: str, **env: str) -> None:
        self.folder = folder
        self.port = port
        command = [sys.executable, str(zipapp), "inspect", "--port", str(port), *arguments]
        command += ["--termination-log", str(folder / "termination-log")]
        environment = {**os.environ, "POD_IP": "127.0.0.1", **env}
        with open(folder / "stderr", "wb") as err:
            self.process = subprocess.Popen(command, env=environment, stderr=err)

    def read(self) -> str | None:
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self.port}/inspection", timeout=10) as answer:
                text: str = answer.read().decode()
                return text
        except OSError as error:
            if hasattr(error, "close"):
                error.close()
            return None


@pytest.fixture
def inspection(zipapp: Path, tmp_path: Path, helpers: Any) -> Iterator[Callable[..., InspectionPod]]:
    pods: list[InspectionPod] = []

    def start(*arguments: str, **env: str) -> InspectionPod:
        pods.append(InspectionPod(zipapp, tmp_path, helpers.free_port(), *arguments, **env))
        return pods[-1]

    yield start
    for pod in pods:
        if pod.process.poll() is None:
            pod.process.send_signal(signal.SIGTERM)
            pod.process.wait(timeout=60)


def test_the_pod_serves_the_summary_once_and_ends(
    inspection: Callable[..., InspectionPod], helpers: Any, hub: Hub
) -> None:
    pod = inspection("--source", "hf://org/tiny", HF_ENDPOINT=hub.endpoint, HF_TOKEN=TOKEN)
    text = helpers.wait_for(pod.read, "the summary")
    assert CheckpointSummary.from_json(text).total_bytes == MODEL.weight_bytes
    assert pod.process.wait(timeout=60) == 0
    assert TOKEN not in text + (pod.folder / "stderr").read_text()


def test_the_pod_ends_when_nobody_reads(inspection: Callable[..., InspectionPod], models: Path) -> None:
    pod = inspection("--source", str(models / "org" / "tiny"), "--name", "pvc://c/tiny", "--ttl", "0.5")
    assert pod.process.wait(timeout=60) == 0


def test_the_pod_says_why_it_failed(inspection: Callable[..., InspectionPod], hub: Hub) -> None:
    hub.set_fault("org/tiny", Fault(kind="gated", tokens=("hf_good",)))
    pod = inspection("--source", "hf://org/tiny", HF_ENDPOINT=hub.endpoint, HF_TOKEN=TOKEN)
    assert pod.process.wait(timeout=60) == 1
    text = (pod.folder / "termination-log").read_text()
    assert Termination.from_json(text).reason == "ModelAccessDenied"
    assert TOKEN not in text
