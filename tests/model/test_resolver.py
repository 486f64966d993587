"""Reading models from the Hub: the answers, and a refusal with a documented reason for each failure."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from e2e.hub.faults import Fault
from e2e.hub.server import Hub
from stowage.api.refusal import Refusal
from stowage.feed.models.resolver import resolve, weight_files
from stowage.model.config_json import read_profile
from stowage.model.profile import ModelProfile
from stowage_runtime.contract import CheckpointSummary
from tests.model.support import TINY, headers_of, profile_of, write_weights

REPO = "test/tiny"
SOURCE = f"hf://{REPO}"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    path = tmp_path / REPO
    path.mkdir(parents=True)
    (path / "config.json").write_text(json.dumps(TINY))
    write_weights(path / "model.safetensors", headers_of(profile_of(TINY)))
    return path


@pytest.fixture
def hub(tmp_path: Path, folder: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    with Hub(tmp_path) as server:
        monkeypatch.setenv("HF_ENDPOINT", server.endpoint)
        yield server


async def refusal_of(source: str = SOURCE, revision: str | None = None, token: str | None = None) -> Refusal:
    answer = await resolve(source, revision, token)
    assert isinstance(answer, Refusal)
    return answer


async def test_a_model_is_summarised_at_its_commit(hub: Hub) -> None:
    summary = await resolve(SOURCE, None)
    assert isinstance(summary, CheckpointSummary)
    assert summary.source == SOURCE
    assert summary.revision is not None
    assert len(summary.revision) == 40
    assert summary.files == 1
    assert dict(summary.config) == TINY
    profile = read_profile(summary)
    assert isinstance(profile, ModelProfile)
    assert profile.parameter_evidence == "headers"
    assert profile.checkpoint_bytes == summary.total_bytes
    again = await resolve(SOURCE, summary.revision)
    assert again == summary


async def test_the_weights_themselves_are_not_downloaded(hub: Hub, folder: Path) -> None:
    size = (folder / "model.safetensors").stat().st_size
    assert size > 1_000_000
    await resolve(SOURCE, None)
    asked = [request for request in hub.requests if request.path.endswith(".safetensors")]
    assert {request.status for request in asked} == {206}


async def test_sharded_checkpoints_are_read_by_their_index(hub: Hub, folder: Path) -> None:
    headers = headers_of(profile_of(TINY))
    (folder / "model.safetensors").unlink()
    halves = {"a": dict(list(headers.items())[:10]), "b": dict(list(headers.items())[10:])}
    for name, half in halves.items():
        write_weights(folder / f"model-{name}.safetensors", half)
    write_weights(folder / "consolidated.safetensors", headers)
    weight_map = {tensor: f"model-{name}.safetensors" for name, half in halves.items() for tensor in half}
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": weight_map}))
    summary = await resolve(SOURCE, None)
    assert isinstance(summary, CheckpointSummary)
    assert summary.files == 2
    (folder / "model-b.safetensors").unlink()
    refusal = await refusal_of()
    assert refusal.reason.value == "InvalidCheckpoint"
    assert "model-b.safetensors" in refusal.message


async def test_the_quantisation_sidecar_is_carried_along(hub: Hub, folder: Path) -> None:
    (folder / "hf_quant_config.json").write_text(json.dumps({"quantization": {"quant_algo": "W4A8_AWQ"}}))
    summary = await resolve(SOURCE, None)
    assert isinstance(summary, CheckpointSummary)
    answer = read_profile(summary)
    assert isinstance(answer, Refusal)
    assert "W4A8_AWQ" in answer.message


async def test_a_gated_model_is_read_with_a_token(hub: Hub) -> None:
    hub.set_fault(REPO, Fault(kind="gated", tokens=("right",)))
    assert isinstance(await resolve(SOURCE, None, "right"), CheckpointSummary)
    refusal = await refusal_of(token="wrong")
    assert refusal.reason.value == "ModelAccessDenied"
    assert "wrong" not in refusal.sentence


@pytest.mark.parametrize(
    ("fault", "reason"),
    [
        pytest.param(Fault(kind="gated"), "ModelAccessDenied", id="a gated model without a token"),
        pytest.param(Fault(kind="unauthorized"), "ModelAccessDenied", id="401 for a bad token"),
        pytest.param(
            Fault(kind="private"), "ModelNotFound", id="a private model looks as if it were not there"
        ),
        pytest.param(Fault(kind="not_found"), "ModelNotFound", id="404"),
        pytest.param(Fault(kind="rate_limited", retry_after_seconds=7), "HubRateLimited", id="429"),
        pytest.param(Fault(kind="server_error"), "HubUnreachable", id="500"),
        pytest.param(
            Fault(kind="server_error", files="config.json"),
            "HubUnreachable",
            id="500 for the configuration only",
        ),
        pytest.param(
            Fault(kind="rate_limited", files="*.safetensors"), "HubRateLimited", id="429 for the weights only"
        ),
    ],
)
async def test_failures_of_the_hub(hub: Hub, fault: Fault, reason: str) -> None:
    hub.set_fault(REPO, fault)
    refusal = await refusal_of()
    assert refusal.reason.value == reason
    assert REPO in refusal.message
    assert refusal.hint


async def test_the_wait_that_the_hub_asks_for_is_told(hub: Hub) -> None:
    hub.set_fault(REPO, Fault(kind="rate_limited", retry_after_seconds=7))
    assert "7 seconds" in (await refusal_of()).message


@pytest.mark.parametrize(
    ("source", "revision", "reason"),
    [
        pytest.param("hf://test/nothing", None, "ModelNotFound", id="an unknown model"),
        pytest.param(SOURCE, "v9", "RevisionNotFound", id="an unknown revision"),
        pytest.param("hf://not a name", None, "InvalidSpec", id="no name at all"),
        pytest.param("pvc://claim/path", None, "NotSupported", id="another kind of source"),
    ],
)
async def test_wrong_names(hub: Hub, source: str, revision: str | None, reason: str) -> None:
    assert (await refusal_of(source, revision)).reason.value == reason


async def test_an_unreachable_hub(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    assert (await refusal_of()).reason.value == "HubUnreachable"


@pytest.mark.parametrize(
    ("file", "content", "reason", "words"),
    [
        pytest.param("config.json", b"{", "InvalidModelConfig", "not JSON", id="a broken config.json"),
        pytest.param("config.json", b"[]", "InvalidModelConfig", "object", id="a config.json that is a list"),
        pytest.param(
            "model.safetensors.index.json", b"nope", "InvalidCheckpoint", "index", id="a broken index"
        ),
        pytest.param(
            "model.safetensors", b"garbage!" * 4, "InvalidCheckpoint", "header", id="weights that are none"
        ),
        pytest.param("config.json", None, "InvalidModelConfig", "no config.json", id="no config.json"),
    ],
)
async def test_broken_files(
    hub: Hub, folder: Path, file: str, content: bytes | None, reason: str, words: str
) -> None:
    if content is None:
        (folder / file).unlink()
    else:
        (folder / file).write_bytes(content)
    refusal = await refusal_of()
    assert refusal.reason.value == reason
    assert words in refusal.message


@pytest.mark.parametrize(
    ("names", "index", "files"),
    [
        pytest.param(["model.safetensors", "a.bin"], None, ["model.safetensors"], id="one file"),
        pytest.param(
            ["m.safetensors", "consolidated.safetensors"], None, ["m.safetensors"], id="a second copy is left out"
        ),
        pytest.param(["consolidated.safetensors"], None, ["consolidated.safetensors"], id="an only copy is taken"),
        pytest.param(["m.safetensors", "original/x.safetensors"], None, ["m.safetensors"], id="folders are left out"),
        pytest.param(["a.safetensors", "b.safetensors"], {"weight_map": {"t": "b.safetensors"}}, ["b.safetensors"],
                     id="an index decides"),
        pytest.param(["a.bin"], None, [], id="no safetensors at all"),
    ],
)  # fmt: skip
def test_choice_of_weight_files(names: list[str], index: dict[str, Any] | None, files: list[str]) -> None:
    assert weight_files(names, index, "test") == files
