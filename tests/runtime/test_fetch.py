"""The model's way into the container: against a local Hub that behaves, and misbehaves, like the real one."""

from __future__ import annotations

import contextlib
import errno
import json
import os
import shutil
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from e2e.hub import Fault, Hub
from e2e.tinymodel import TinyModel
from stowage_runtime.agent_log import AgentLog
from stowage_runtime.checkpoint_files import missing_weights, needed_files, weight_files
from stowage_runtime.contract import ModelRef, Progress
from stowage_runtime.failures import AgentFailure
from stowage_runtime.fetch import Attempt, ModelFetch, out_of_time
from stowage_runtime.hub_errors import HubProblem, problem_of_exception, problem_of_status
from stowage_runtime.processes import Processes
from stowage_runtime.redaction import Redactor
from stowage_runtime.retry_times import RetryTimes

TOKEN = "hf_secretsecretsecret"
HASTY = RetryTimes(first=0.001, unreachable=1.0)
HASTY_LIBRARY = """
import time
# The Hub's library waits 23 s between six tries of its own; the tries stay.
time.sleep = lambda seconds: None
"""


@pytest.fixture
def hub(tmp_path: Path) -> Iterator[Hub]:
    TinyModel(num_hidden_layers=1, shards=2).write(tmp_path / "models" / "org" / "tiny")
    (tmp_path / "models" / "org" / "tiny" / "README.md").write_text("not needed")
    with Hub(tmp_path / "models") as hub:
        yield hub


class Fetching:
    """A fetch with everything around it, and what it said."""

    def __init__(self, hub: Hub, home: Path, token: str | None = None) -> None:
        self.home = home
        customised = home.parent / "customised"
        customised.mkdir()
        (customised / "sitecustomize.py").write_text(HASTY_LIBRARY)
        self.progress: list[Progress] = []
        self.processes = Processes()
        runtime = Path(sys.modules["stowage_runtime"].__path__[0]).parent
        path = f"{customised}:{runtime}"
        env = {**os.environ, "HF_ENDPOINT": hub.endpoint, "HF_HOME": str(home), "PYTHONPATH": path}
        env.pop("HF_TOKEN", None)
        if token is not None:
            env["HF_TOKEN"] = token
        redact = Redactor.of_environment(env)
        log = AgentLog(redact)
        self.fetcher = ModelFetch(self.processes, env, log, redact, self.progress.append, times=HASTY)

    def fetch(self, revision: str, repo_id: str = "org/tiny", budget_seconds: float = 60.0) -> Path:
        model = ModelRef(kind="hf", repo_id=repo_id, revision=revision)
        return Path(self.fetcher.fetch(model, time.monotonic() + budget_seconds))

    def reason(
        self, revision: str, repo_id: str = "org/tiny", budget_seconds: float = 60.0
    ) -> tuple[str, str]:
        with pytest.raises(AgentFailure) as caught:
            self.fetch(revision, repo_id, budget_seconds)
        return caught.value.termination.reason, caught.value.termination.message


@pytest.fixture
def fetching(hub: Hub, tmp_path: Path) -> Iterator[Fetching]:
    found = Fetching(hub, tmp_path / "home")
    yield found
    found.processes.close()


@pytest.fixture
def commit(hub: Hub) -> str:
    from huggingface_hub import HfApi

    commit = HfApi(endpoint=hub.endpoint, token=False).model_info("org/tiny").sha
    assert commit is not None
    return commit


def test_a_model_arrives_with_what_the_engine_needs(fetching: Fetching, commit: str) -> None:
    path = fetching.fetch(commit)
    names = {file.name for file in path.iterdir()}
    assert {"config.json", "model.safetensors.index.json", "tokenizer.json"} <= names
    assert sum(name.endswith(".safetensors") for name in names) == 2
    assert "README.md" not in names
    last = fetching.progress[-1]
    assert last.total_bytes == sum(file.stat().st_size for file in path.iterdir())
    assert last.fetched_bytes == last.total_bytes


def test_a_restart_needs_no_hub(fetching: Fetching, hub: Hub, commit: str) -> None:
    path = fetching.fetch(commit)
    hub.set_fault("org/tiny", Fault(kind="not_found"))
    assert fetching.fetch(commit) == path


def test_a_half_emptied_cache_is_fetched_again(fetching: Fetching, commit: str) -> None:
    path = fetching.fetch(commit)
    shutil.rmtree(fetching.home / "hub")
    assert fetching.fetch(commit) == path
    assert (path / "config.json").is_file()


def test_a_short_outage_heals(fetching: Fetching, hub: Hub, commit: str) -> None:
    hub.set_fault("org/tiny", Fault(kind="server_error", times=1))
    assert (fetching.fetch(commit) / "config.json").is_file()


def test_a_lasting_rate_limit_is_named_when_the_budget_ends() -> None:
    state = Attempt(total_bytes=2**31)
    state.overhear("Rate limited. Waiting 31.0s before retry [Retry 1/5].")
    assert out_of_time("org/tiny", state).termination.reason == "StartupTimeout"
    state.overhear("HTTP Error 429 thrown while requesting GET http://hub/api/models/org/tiny/tree/main")
    found = out_of_time("org/tiny", state).termination
    assert found.reason == "HubRateLimited"
    assert "0.00 of 2.00 GiB were there. The Hub's last answer: HTTP Error 429" in found.message


@pytest.mark.parametrize(
    ("fault", "token", "reason", "words"),
    [
        pytest.param(
            Fault(kind="gated", tokens=("hf_good",)),
            None,
            "ModelAccessDenied",
            "no token was given",
            id="gated, no token",
        ),
        pytest.param(
            Fault(kind="gated", tokens=("hf_good",)),
            TOKEN,
            "ModelAccessDenied",
            "the token of tokenSecretRef has no access",
            id="gated, with a token that has no access",
        ),
        pytest.param(Fault(kind="unauthorized"), TOKEN, "ModelAccessDenied", "401", id="an invalid token"),
    ],
)
def test_refusals_are_told_apart(
    hub: Hub, tmp_path: Path, commit: str, fault: Fault, token: str | None, reason: str, words: str
) -> None:
    fetching = Fetching(hub, tmp_path / "home", token)
    hub.set_fault("org/tiny", fault)
    with contextlib.closing(fetching.processes):
        found, message = fetching.reason(commit)
    assert found == reason
    assert words in message
    assert TOKEN not in message


def test_a_good_token_opens_a_gated_model(hub: Hub, tmp_path: Path, commit: str) -> None:
    fetching = Fetching(hub, tmp_path / "home", TOKEN)
    hub.set_fault("org/tiny", Fault(kind="gated", tokens=(TOKEN,)))
    with contextlib.closing(fetching.processes):
        assert (fetching.fetch(commit) / "config.json").is_file()


def test_a_missing_repository_is_named(fetching: Fetching) -> None:
    reason, message = fetching.reason("0" * 40, repo_id="org/nothing")
    assert reason in ("ModelNotFound", "ModelAccessDenied")
    assert "org/nothing" in message


def test_a_missing_commit_is_named(fetching: Fetching) -> None:
    assert fetching.reason("0" * 40)[0] == "ModelNotFound"


def test_a_repository_without_safetensors_is_refused(fetching: Fetching, hub: Hub, tmp_path: Path) -> None:
    folder = tmp_path / "models" / "org" / "old@main"
    folder.mkdir()
    (folder / "config.json").write_text("{}")
    (folder / "pytorch_model.bin").write_bytes(b"x")
    reason, message = fetching.reason("main", repo_id="org/old")
    assert reason == "ModelFetchFailed"
    assert "has no safetensors files" in message


def test_an_unreachable_hub_is_named(fetching: Fetching, hub: Hub) -> None:
    hub.stop()
    reason, message = fetching.reason("0" * 40)
    assert reason == "HubUnreachable"
    assert "cannot be reached" in message


@pytest.mark.parametrize(
    ("problems", "attempts", "reason"),
    [
        pytest.param(["HubRateLimited"] * 5, 6, None, id="server errors heal after a while"),
        pytest.param(["HubUnreachable"] * 3, 4, None, id="a short break of the network heals"),
        pytest.param(["ModelFetchFailed"], 2, None, id="an odd failure is tried once more"),
        pytest.param(
            ["ModelFetchFailed"] * 3, 2, "ModelFetchFailed", id="an odd failure is tried once more only"
        ),
        pytest.param(["ModelNotFound"] * 2, 1, "ModelNotFound", id="what is missing stays missing"),
        pytest.param(["DiskFull"] * 2, 1, "DiskFull", id="a full disk stays full"),
    ],
)
def test_only_what_can_heal_is_retried(
    fetching: Fetching,
    monkeypatch: pytest.MonkeyPatch,
    problems: list[str],
    attempts: int,
    reason: str | None,
) -> None:
    made: list[str] = []

    def attempt(_self: ModelFetch, repo_id: str, _revision: str, _deadline: float) -> SimpleNamespace:
        made.append(repo_id)
        left = problems[len(made) - 1 :]
        if not left:
            return SimpleNamespace(path="/there", problem=None, blobs=None, total_bytes=None)
        retryable = left[0] in ("HubRateLimited", "HubUnreachable")
        return SimpleNamespace(
            path=None, problem=HubProblem(left[0], "No.", retryable), blobs=None, total_bytes=None
        )

    monkeypatch.setattr(ModelFetch, "_attempt", attempt)
    if reason is None:
        assert fetching.fetch("0" * 40) == Path("/there")
    else:
        assert fetching.reason("0" * 40)[0] == reason
    assert len(made) == attempts


def test_a_slow_download_ends_with_the_budget(fetching: Fetching, hub: Hub, commit: str) -> None:
    hub.set_fault("org/tiny", Fault(kind="slow", files="*.safetensors", bytes_per_second=1000))
    reason, message = fetching.reason(commit, budget_seconds=5)
    assert reason == "StartupTimeout"
    assert "while fetching org/tiny" in message


@pytest.mark.parametrize(
    ("make", "words"),
    [
        pytest.param(lambda path: None, "There is no folder", id="no folder"),
        pytest.param(lambda path: path.mkdir(), "has no config.json", id="an empty folder"),
    ],
)
def test_a_volume_without_a_model_is_named(
    fetching: Fetching, tmp_path: Path, make: object, words: str
) -> None:
    path = tmp_path / "volume"
    make(path)  # type: ignore[operator]
    with pytest.raises(AgentFailure, match=words) as caught:
        fetching.fetcher.fetch(ModelRef(kind="pvc", path=str(path)), 0.0)
    assert caught.value.termination.reason == "ModelNotFound"


@pytest.mark.parametrize(
    ("status", "reason", "retryable"),
    [
        pytest.param(401, "ModelAccessDenied", False, id="401"),
        pytest.param(403, "ModelAccessDenied", False, id="403"),
        pytest.param(404, "ModelNotFound", False, id="404"),
        pytest.param(410, "ModelFetchFailed", False, id="another refusal"),
        pytest.param(429, "HubRateLimited", True, id="429"),
        pytest.param(503, "HubRateLimited", True, id="503"),
    ],
)
def test_statuses_have_reasons(status: int, reason: str, retryable: bool) -> None:
    problem = problem_of_status(status, "org/x at main", False, {"retry-after": "7"})
    assert problem is not None
    assert (problem.reason, problem.retryable) == (reason, retryable)
    assert problem.retry_after_seconds == (7.0 if retryable else None)


def test_a_good_status_is_no_problem() -> None:
    assert problem_of_status(200, "x", False) is None


class ConnectTimeout(Exception):
    """Named like the exceptions of HTTP libraries."""


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        pytest.param(OSError(errno.ENOSPC, "No space left on device"), "DiskFull", id="a full disk"),
        pytest.param(ConnectionRefusedError("refused"), "HubUnreachable", id="refused"),
        pytest.param(ConnectTimeout("slow"), "HubUnreachable", id="a library's own timeout"),
        pytest.param(ValueError("odd"), "ModelFetchFailed", id="anything else"),
    ],
)
def test_exceptions_have_reasons_also_as_causes(error: Exception, reason: str) -> None:
    assert problem_of_exception(error, "x", False).reason == reason
    outer = RuntimeError("wrapped")
    outer.__cause__ = error
    wrapped = problem_of_exception(outer, "x", False)
    assert wrapped.reason == reason
    json.dumps(wrapped.to_dict())


@given(st.integers(0, 1000), st.none() | st.floats(0, 1000), st.floats(0, 1))
def test_waits_grow_and_stay_within_bounds(attempt: int, asked: float | None, jitter: float) -> None:
    times = RetryTimes()
    wait = times.wait(attempt, asked, jitter)
    assert wait >= (asked or 0.0)
    assert 1.0 <= wait <= max(60.0, asked or 0.0)
    assert times.wait(attempt + 1, asked, jitter) >= wait


@pytest.mark.parametrize(
    ("names", "index", "weights"),
    [
        pytest.param(["model.safetensors", "x.bin"], None, ["model.safetensors"], id="one file"),
        pytest.param(
            ["consolidated.safetensors", "model-1.safetensors"],
            None,
            ["model-1.safetensors"],
            id="a second copy",
        ),
        pytest.param(["consolidated.safetensors"], None, ["consolidated.safetensors"], id="only that copy"),
        pytest.param(["a.safetensors", "sub/b.safetensors"], None, ["a.safetensors"], id="a folder beside"),
        pytest.param(["sub/b.safetensors"], None, ["sub/b.safetensors"], id="only a folder"),
        pytest.param(
            ["a.safetensors", "b.safetensors"],
            {"weight_map": {"w": "a.safetensors"}},
            ["a.safetensors"],
            id="what the index names",
        ),
    ],
)
def test_weights_are_chosen_as_the_engine_does(
    names: list[str], index: dict[str, object] | None, weights: list[str]
) -> None:
    assert weight_files(names, index) == weights
    assert set(weights) <= set(needed_files(names, index))


def test_small_files_come_along() -> None:
    names = [
        "a.safetensors",
        "config.json",
        "tokenizer.model",
        "x.py",
        "README.md",
        "onnx/model.json",
        "y.gguf",
    ]
    assert needed_files(names, None) == ["a.safetensors", "config.json", "tokenizer.model", "x.py"]


def test_weights_that_the_index_names_may_be_missing() -> None:
    assert missing_weights(["a"], {"weight_map": {"v": "a", "w": "b"}}) == ["b"]
