"""The real `huggingface_hub` client against the local hub: it works, and fails, as with the real Hub."""

from __future__ import annotations

import json
import threading
import time
import urllib.request
from pathlib import Path

import httpx2
import pytest
from huggingface_hub import HfApi, constants
from huggingface_hub.errors import (
    GatedRepoError,
    HfHubHTTPError,
    RemoteEntryNotFoundError,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)

from e2e.hub import Fault, Hub, catalog
from e2e.hub.content import select
from e2e.tinymodel import TinyModel

GOOD, OTHER = "hf_good", "hf_other"


@pytest.fixture
def api(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> HfApi:
    monkeypatch.setenv("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    return HfApi(endpoint=hub.endpoint, token=False)


def tree_bytes(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()}


def test_snapshot_download_brings_every_byte(api: HfApi, hub_root: Path, tmp_path: Path) -> None:
    folder = Path(api.snapshot_download("org/tiny", cache_dir=tmp_path / "cache"))
    assert tree_bytes(folder) == tree_bytes(hub_root / "org" / "tiny")
    assert folder.name == api.model_info("org/tiny").sha


def test_commit_follows_the_content_and_is_served_under_its_hash(api: HfApi, hub_root: Path) -> None:
    before = api.model_info("org/tiny").sha
    assert before is not None
    assert api.model_info("org/tiny", revision=before).sha == before
    (hub_root / "org" / "tiny" / "README.md").write_text("changed")
    assert api.model_info("org/tiny").sha != before
    with pytest.raises(RevisionNotFoundError):
        api.model_info("org/tiny", revision=before)


def test_tag_is_a_revision_of_its_own(api: HfApi, hub_root: Path, tmp_path: Path) -> None:
    TinyModel(num_hidden_layers=1).write(hub_root / "org" / "tiny@v1")
    tags = {tag.name: tag.target_commit for tag in api.list_repo_refs("org/tiny").tags}
    assert tags == {"v1": api.model_info("org/tiny", revision="v1").sha}
    config = Path(api.hf_hub_download("org/tiny", "config.json", revision="v1", cache_dir=tmp_path / "cache"))
    assert json.loads(config.read_text())["num_hidden_layers"] == 1


@pytest.mark.parametrize("name", ["tiny", "sharded"])
def test_safetensors_metadata_is_read_without_downloading(name: str, api: HfApi, hub: Hub) -> None:
    metadata = api.get_safetensors_metadata(f"org/{name}")
    expected = TinyModel(num_hidden_layers=2).tensors()
    found = {
        key: tuple(t.shape) for file in metadata.files_metadata.values() for key, t in file.tensors.items()
    }
    assert found == expected
    assert metadata.sharded == (name == "sharded")


def test_sharded_metadata_comes_in_one_request(api: HfApi, hub: Hub) -> None:
    metadata = api.get_sharded_safetensors_metadata("org/sharded")
    assert set(metadata.weight_map) == set(TinyModel(num_hidden_layers=2).tensors())
    assert len(hub.requests) == 1


def test_file_sizes_and_large_file_hashes_are_listed(api: HfApi, hub_root: Path) -> None:
    info = api.model_info("org/tiny", files_metadata=True)
    siblings = {sibling.rfilename: sibling for sibling in info.siblings or ()}
    path = hub_root / "org" / "tiny" / "model.safetensors"
    assert siblings["model.safetensors"].size == path.stat().st_size
    assert siblings["model.safetensors"].lfs is not None
    assert siblings["config.json"].lfs is None
    assert {entry.path for entry in api.get_paths_info("org/tiny", ["config.json", "nope"])} == {
        "config.json"
    }


def test_missing_repository_file_and_revision_are_told_apart(api: HfApi, tmp_path: Path) -> None:
    with pytest.raises(RepositoryNotFoundError):
        api.model_info("org/none")
    with pytest.raises(RevisionNotFoundError):
        api.model_info("org/tiny", revision="none")
    with pytest.raises(RemoteEntryNotFoundError):
        api.hf_hub_download("org/tiny", "none.json", cache_dir=tmp_path / "cache")


@pytest.mark.parametrize(
    ("token", "status"),
    [
        pytest.param(False, 401, id="without a token the file is refused with 401"),
        pytest.param(OTHER, 403, id="a token that was not granted access is refused with 403"),
        pytest.param(GOOD, 200, id="the granted token gets the file"),
    ],
)
def test_gated_repository(token: str | bool, status: int, hub: Hub, api: HfApi) -> None:
    hub.set_fault("org/tiny", Fault(kind="gated", tokens=(GOOD,)))
    assert api.model_info("org/tiny", token=token).gated == "manual"
    if status == 200:
        assert api.parse_safetensors_file_metadata("org/tiny", "model.safetensors", token=token).tensors
        return
    with pytest.raises(GatedRepoError) as refusal:
        api.parse_safetensors_file_metadata("org/tiny", "model.safetensors", token=token)
    assert refusal.value.response.status_code == status


@pytest.mark.parametrize(
    ("kind", "error", "status"),
    [
        pytest.param("not_found", RepositoryNotFoundError, 404, id="a repository that is gone is not found"),
        pytest.param("private", RepositoryNotFoundError, 401, id="a private one looks like a missing one"),
        pytest.param("unauthorized", HfHubHTTPError, 401, id="an invalid token is refused"),
        pytest.param("rate_limited", HfHubHTTPError, 429, id="too many requests"),
        pytest.param("server_error", HfHubHTTPError, 500, id="a broken hub"),
    ],
)
def test_fault_is_seen_as_on_the_hub(
    kind: str, error: type[HfHubHTTPError], status: int, hub: Hub, api: HfApi
) -> None:
    hub.set_fault("org/tiny", Fault(kind=kind, times=1, retry_after_seconds=7))
    with pytest.raises(error) as refusal:
        api.model_info("org/tiny")
    assert refusal.value.response.status_code == status
    if status == 429:
        assert refusal.value.response.headers["Retry-After"] == "7"
    assert api.model_info("org/tiny").sha, "the fault was to happen once"


def test_interrupted_download_is_resumed_to_the_last_byte(
    hub: Hub, api: HfApi, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(constants, "DOWNLOAD_CHUNK_SIZE", 4096)  # it resumes after a whole chunk
    hub.set_fault("org/tiny", Fault(kind="cut", times=2, files="*.safetensors"))  # HEAD is the first of two
    path = Path(api.hf_hub_download("org/tiny", "model.safetensors", cache_dir=tmp_path / "cache"))
    assert path.stat().st_size == (hub.api.store.root / "org" / "tiny" / "model.safetensors").stat().st_size
    assert [request.status for request in hub.requests if request.method == "GET"] == [200, 206]


def test_hanging_request_is_released_when_the_hub_stops(hub_root: Path) -> None:
    hub = Hub(hub_root).start()
    hub.set_fault("org/tiny", Fault(kind="hang"))
    outcome: list[str] = []

    def ask() -> None:
        try:
            HfApi(endpoint=hub.endpoint, token=False).model_info("org/tiny", timeout=60)
        except httpx2.TransportError as error:
            outcome.append(type(error).__name__)

    thread = threading.Thread(target=ask)
    thread.start()
    time.sleep(0.2)
    hub.stop()
    thread.join(30)
    assert outcome, "the client was left hanging"


def test_slow_content_arrives_whole(hub: Hub, api: HfApi, tmp_path: Path) -> None:
    hub.set_fault("org/tiny", Fault(kind="slow", files="config.json", bytes_per_second=4000))
    path = Path(api.hf_hub_download("org/tiny", "config.json", cache_dir=tmp_path / "cache"))
    assert path.read_bytes() == (hub.api.store.root / "org" / "tiny" / "config.json").read_bytes()


def test_faults_and_requests_can_be_handled_over_http(hub: Hub, api: HfApi) -> None:
    def control(method: str, path: str, body: bytes | None = None) -> object:
        request = urllib.request.Request(f"{hub.endpoint}/control/{path}", data=body, method=method)
        with urllib.request.urlopen(request) as response:
            return json.load(response)

    control("PUT", "faults/org/tiny", b'{"kind": "not_found"}')
    with pytest.raises(RepositoryNotFoundError):
        api.model_info("org/tiny")
    control("DELETE", "faults/org/tiny")
    api.model_info("org/tiny", token=GOOD)
    assert control("GET", "requests") == [
        {"method": "GET", "path": "/api/models/org/tiny", "status": status, "authorized": status == 200}
        for status in (404, 200)
    ]


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        pytest.param({}, "has no kind", id="a fault needs a kind"),
        pytest.param({"kind": "sleepy"}, "'sleepy' is unknown", id="an unknown kind is refused"),
        pytest.param({"kind": "slow", "speed": 1}, "unknown fields", id="an unknown field is refused"),
    ],
)
def test_bad_faults_are_refused(content: dict, sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        Fault.from_json(content)


@pytest.mark.parametrize(
    ("wanted", "start", "length", "status"),
    [
        pytest.param(None, 0, 100, 0, id="no range is everything"),
        pytest.param("bytes=0-9", 0, 10, 206, id="the first ten bytes"),
        pytest.param("bytes=90-", 90, 10, 206, id="from a byte to the end"),
        pytest.param("bytes=-5", 95, 5, 206, id="the last five bytes"),
        pytest.param("bytes=50-1000", 50, 50, 206, id="an end beyond the file is the file's end"),
        pytest.param("bytes=100-", 0, 0, 416, id="a start beyond the file cannot be satisfied"),
        pytest.param("lines=1-2", 0, 100, 0, id="another unit is ignored"),
    ],
)
def test_ranges(wanted: str | None, start: int, length: int, status: int) -> None:
    part = select(100, wanted)
    assert (part.start, part.length, part.status) == (start, length, status)


@pytest.mark.parametrize(
    ("repo_id", "layers"),
    [
        pytest.param("meta-llama/Llama-3.1-8B", 32, id="Llama 3.1 8B under its new name"),
        pytest.param("meta-llama/Meta-Llama-3.1-70B", 80, id="Llama 3.1 70B under its old name"),
        pytest.param("meta-llama/Llama-3.1-70B-Instruct", 80, id="Llama 3.1 70B Instruct"),
        pytest.param("Qwen/Qwen3-8B", 36, id="Qwen3 8B"),
        pytest.param("Qwen/Qwen3-32B", 64, id="Qwen3 32B"),
    ],
)
def test_published_configurations_are_served(repo_id: str, layers: int, api: HfApi, tmp_path: Path) -> None:
    path = Path(api.hf_hub_download(repo_id, "config.json", cache_dir=tmp_path / "cache"))
    assert json.loads(path.read_text())["num_hidden_layers"] == layers
    assert not [s for s in api.model_info(repo_id).siblings or () if s.rfilename.endswith(".safetensors")]


def test_catalogue_has_no_made_up_models() -> None:
    assert catalog.published("meta-llama/Llama-9-8B") is None
    assert catalog.published("Qwen/Qwen3-8B-Instruct") is None
    assert len(catalog.repository_ids()) > 80


@pytest.mark.parametrize(
    "path", ["/../../etc/passwd/resolve/main/x", "/api/models/..%2F..%2Fetc", "/nothing/at/all"]
)
def test_nothing_outside_the_root_is_served(path: str, hub: Hub) -> None:
    with pytest.raises(urllib.error.HTTPError) as refusal:
        urllib.request.urlopen(hub.endpoint + path)
    assert refusal.value.code in (401, 404)
    refusal.value.close()
