"""The contract: every record survives JSON, and bad documents end in one clear sentence per bad field."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stowage_runtime.contract import (
    PHASES,
    TERMINATION_REASONS,
    CheckpointSummary,
    ContractError,
    EngineExpectation,
    EngineFacts,
    Failure,
    GpuExpectation,
    LaunchSpec,
    ModelRef,
    Progress,
    RuntimeReport,
    TensorGroup,
    Termination,
    Utilization,
    summarize,
)
from stowage_runtime.contract.checkpoint_summary import DTYPE_BITS, parse_ranges, tensor_bytes

GOOD_SPEC: dict[str, Any] = {
    "agentPort": 9400,
    "args": ["--max-model-len", "4096"],
    "drainTimeoutSeconds": 30,
    "engine": {"hardware": "GPU", "version": "0.32.0"},
    "env": {"VLLM_USE_V1": "1"},
    "gpus": {
        "computeCapability": "9.0",
        "count": 4,
        "minTotalMemoryBytes": 85520809984,
        "product": "NVIDIA-H100-80GB-HBM3",
    },
    "model": {
        "kind": "hf",
        "repoId": "Qwen/Qwen3-8B",
        "revision": "b968826d9c46dd6066d109eabc6255188de91218",
    },
    "name": "llama",
    "namespace": "default",
    "port": 8000,
    "schema": 1,
    "servedModelName": "llama",
    "startupTimeoutSeconds": 1800,
}

texts = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=30)
labels = st.from_regex(r"[a-z][a-z0-9-]{0,20}[a-z0-9]", fullmatch=True)
counts = st.integers(0, 2**50)
seconds = st.floats(0, 1e9, allow_nan=False)


def maybe(strategy: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    return st.none() | strategy


models = st.builds(
    ModelRef,
    kind=st.just("hf"),
    repo_id=st.from_regex(r"[A-Za-z0-9]{1,9}/[A-Za-z0-9._-]{1,9}", fullmatch=True),
    revision=st.from_regex(r"[0-9a-f]{40}", fullmatch=True),
    path=st.none(),
) | st.builds(ModelRef, kind=st.just("pvc"), path=texts.map(lambda text: "/" + text))
specs = st.builds(
    LaunchSpec,
    namespace=labels,
    name=labels,
    served_model_name=texts,
    model=models,
    engine=st.builds(EngineExpectation, version=st.just("0.32.0"), hardware=st.just("GPU")),
    args=st.lists(texts.map(lambda text: "--x-" + text)).map(tuple),
    env=st.dictionaries(st.from_regex(r"STOWAGE_[A-Z]{1,5}", fullmatch=True), st.text(max_size=20)),
    startup_timeout_seconds=st.integers(1, 86_400),
    drain_timeout_seconds=st.integers(0, 86_400),
    gpus=st.builds(
        GpuExpectation,
        count=st.integers(1, 64),
        product=texts,
        min_total_memory_bytes=counts,
        compute_capability=st.sampled_from(["7.5", "9.0", "10.0"]),
    ),
    port=st.integers(1, 30_000),
    agent_port=st.integers(30_001, 65_535),
    schema=st.just(1),
)
moments = st.just("2026-01-31T12:00:00Z")
facts = st.builds(
    EngineFacts,
    kind=maybe(st.sampled_from(["vllm", "simulated"])),
    version=maybe(texts),
    block_size=maybe(st.integers(1, 2**20)),
    kv_cache_bytes=maybe(st.integers(-(2**40), 2**40)),
    max_concurrency=maybe(seconds),
    log_lines_seen=st.lists(texts).map(tuple),
)
reports = st.builds(
    RuntimeReport,
    phase=st.sampled_from(PHASES),
    phase_since=moments,
    started_at=moments,
    launch_hash=st.from_regex(r"[0-9a-f]{64}", fullmatch=True),
    progress=st.builds(Progress, fetched_bytes=counts, total_bytes=maybe(counts), note=maybe(texts)),
    engine=facts,
    utilization=maybe(
        st.builds(
            Utilization,
            kv_usage=st.floats(0, 1),
            running=counts,
            waiting=counts,
            preemptions_total=counts,
            prompt_tokens_total=counts,
            generation_tokens_total=counts,
            request_success_total=counts,
            prompt_tokens_per_second=maybe(seconds),
            generation_tokens_per_second=maybe(seconds),
            ttft_seconds_mean=maybe(seconds),
            tpot_seconds_mean=maybe(seconds),
            window_seconds=maybe(seconds),
        )
    ),
    failure=maybe(st.builds(Failure, reason=st.sampled_from(list(TERMINATION_REASONS)), message=texts)),
    schema=st.just(1),
)


@given(specs | reports)
def test_every_record_survives_json(record: LaunchSpec | RuntimeReport) -> None:
    again = type(record).from_json(record.to_json())
    assert again == record
    assert again.to_json() == record.to_json()
    assert again.content_hash() == record.content_hash()


def test_json_is_stable_and_compact() -> None:
    spec = LaunchSpec.from_json(json.dumps(GOOD_SPEC, indent=4))
    assert spec.to_json() == json.dumps(GOOD_SPEC, sort_keys=True, separators=(",", ":"))
    shuffled = dict(reversed(list(GOOD_SPEC.items())))
    assert LaunchSpec.from_dict(shuffled).content_hash() == spec.content_hash()


def test_another_content_has_another_hash() -> None:
    other = LaunchSpec.from_dict({**GOOD_SPEC, "args": []})
    assert other.content_hash() != LaunchSpec.from_dict(GOOD_SPEC).content_hash()


def change(path: str, value: Any) -> dict[str, Any]:
    """Return the good document with one value replaced, or removed for Ellipsis."""
    document: dict[str, Any] = json.loads(json.dumps(GOOD_SPEC))
    *parents, last = path.split(".")
    place = document
    for parent in parents:
        place = place[parent]
    if value is ...:
        del place[last]
    else:
        place[last] = value
    return document


@pytest.mark.parametrize(
    ("path", "value", "sentence"),
    [
        pytest.param("name", ..., "name is missing; it must be an object name", id="a missing name"),
        pytest.param("name", "Big", 'name is "Big"; it must be an object name', id="an upper-case name"),
        pytest.param(
            "namespace", 7, "namespace is 7; it must be a namespace name", id="a number for a string"
        ),
        pytest.param("port", 0, "port is 0; it must be a whole number from 1 to 65535.", id="port zero"),
        pytest.param("port", True, "port is true; it must be a whole number", id="a boolean is no number"),
        pytest.param("port", 9400, "agentPort is 9400, the engine's own port", id="one port for both"),
        pytest.param(
            "schema", 2, "schema is 2; it must be 1: use the same Stowage version", id="a later schema"
        ),
        pytest.param(
            "engine.version", "new", 'engine.version is "new"; it must be a vLLM version', id="no version"
        ),
        pytest.param("engine.hardware", "TPU", "it must be one of GPU, CPU.", id="an unknown hardware"),
        pytest.param(
            "engine.hardware", "CPU", "gpus is set; engine.hardware CPU has none", id="GPUs on a CPU"
        ),
        pytest.param("gpus", ..., "gpus is missing; engine.hardware GPU needs", id="no GPUs on a GPU node"),
        pytest.param(
            "gpus.count", 0, "gpus.count is 0; it must be a whole number from 1 to 64.", id="no GPU"
        ),
        pytest.param("gpus.count", 1.5, "gpus.count is 1.5; it must be a whole number", id="half a GPU"),
        pytest.param("gpus.computeCapability", "9", "a compute capability like 9.0", id="half a capability"),
        pytest.param("gpus.extra", 1, "gpus.extra is not a known field", id="an unknown field"),
        pytest.param(
            "args", "--x", 'args is "--x"; it must be a list of vLLM options.', id="one string as args"
        ),
        pytest.param("args", ["--x", 3], "args[1] is 3; it must be a string", id="a number among args"),
        pytest.param(
            "args", ["--port=1"], "args has --port; the agent sets it itself", id="an option of the agent"
        ),
        pytest.param("args", ["--api-key", "x"], "args has --api-key; a secret", id="a secret among args"),
        pytest.param("env", {"A": 1}, "env.A is 1; it must be a string.", id="a number in env"),
        pytest.param("env", {"1A": "x"}, 'env has the name "1A"', id="a bad variable name"),
        pytest.param(
            "env", {"HF_TOKEN": "x"}, "env has HF_TOKEN; a secret may only come", id="a token in env"
        ),
        pytest.param("model.kind", "s3", "model.kind is", id="an unknown kind of model"),
        pytest.param(
            "model.repoId", ..., "model.repoId is missing; a hf model needs", id="a repository is missing"
        ),
        pytest.param(
            "model.revision", ..., "model.revision is missing; a hf model", id="a commit is missing"
        ),
        pytest.param(
            "model", {"kind": "pvc"}, "model.path is missing; a pvc model", id="a volume without a path"
        ),
        pytest.param("model", {"kind": "pvc", "path": "x"}, "model.path is", id="a relative path"),
        pytest.param("model", None, "model is null; it must be a JSON object.", id="null for an object"),
        pytest.param("startupTimeoutSeconds", 0, "startupTimeoutSeconds is 0", id="no time to start"),
    ],
)
def test_a_bad_field_gets_one_sentence(path: str, value: Any, sentence: str) -> None:
    with pytest.raises(ContractError) as caught:
        LaunchSpec.from_dict(change(path, value))
    assert len(caught.value.problems) == 1, caught.value.problems
    assert sentence in caught.value.problems[0]
    assert caught.value.problems[0].endswith(".")


def test_all_bad_fields_are_named_at_once() -> None:
    with pytest.raises(ContractError) as caught:
        LaunchSpec.from_dict({**GOOD_SPEC, "port": 0, "name": "", "env": []})
    assert [problem.split(" ")[0] for problem in caught.value.problems] == ["name", "env", "port"]


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        pytest.param("{", "The document is not valid JSON", id="broken JSON"),
        pytest.param("[]", "The document is []; it must be a JSON object.", id="a list"),
        pytest.param('{"name": NaN}', "NaN is not a JSON number", id="a NaN"),
        pytest.param(b"\xff\xfe\x00", "The document is not valid JSON", id="no text at all"),
        pytest.param("[" * 100_000, "The document is not valid JSON", id="absurd nesting"),
    ],
)
def test_what_is_no_document_gets_one_sentence(text: str | bytes, sentence: str) -> None:
    with pytest.raises(ContractError) as caught:
        LaunchSpec.from_json(text)
    assert sentence in str(caught.value)


def test_a_report_of_a_newer_agent_can_be_read() -> None:
    report = {
        "phase": "Serving",
        "phaseSince": "2026-01-31T12:00:00Z",
        "startedAt": "2026-01-31T12:00:00Z",
        "launchHash": "0" * 64,
        "schema": 1,
        "inventedLater": {"x": 1},
        "engine": {"kind": "vllm", "alsoInventedLater": 2},
    }
    assert RuntimeReport.from_dict(report).engine == EngineFacts(kind="vllm")


@given(
    st.sampled_from(list(TERMINATION_REASONS)),
    st.text(min_size=1, max_size=5000).filter(lambda text: len(text) <= 4096),
    maybe(st.dictionaries(st.sampled_from(["a", "b", "c"]), st.integers() | st.text(max_size=3000))),
)
def test_a_termination_message_always_fits(reason: str, message: str, details: dict[str, Any] | None) -> None:
    line = Termination(reason=reason, message=message, details=details).to_line()
    assert len(line.encode()) <= 4096
    assert "\n" not in line
    assert Termination.from_json(line).reason == reason


def test_reasons_are_documented_sentences() -> None:
    for reason, meaning in TERMINATION_REASONS.items():
        assert reason[0].isupper()
        assert meaning.endswith(".")


parts = st.sampled_from(["layers", "experts", "weight", "w1", "0", "1", "2", "7", "10", "007", "{}"])
names = st.lists(parts, min_size=1, max_size=6).map(".".join)
tensors = st.tuples(st.sampled_from(sorted(DTYPE_BITS)), st.lists(st.integers(0, 5), max_size=3).map(tuple))


@given(st.dictionaries(names, tensors, max_size=40))
def test_folding_tensors_loses_nothing(header: dict[str, tuple[str, tuple[int, ...]]]) -> None:
    summary = summarize({"model.safetensors": header}, source="hf://a/b", revision=None, config={})
    unfolded = {name: (group.dtype, group.shape) for group in summary.tensors for name in group.names()}
    assert unfolded == header
    assert sum(group.count for group in summary.tensors) == len(header)
    assert summary.total_bytes == sum(tensor_bytes(dtype, shape) for dtype, shape in header.values())
    assert CheckpointSummary.from_json(summary.to_json()) == summary


def test_a_mixture_of_experts_folds_to_a_few_lines() -> None:
    header: dict[str, tuple[str, tuple[int, ...]]] = {
        f"model.layers.{layer}.mlp.experts.{expert}.{part}_proj.weight": ("BF16", (768, 2048))
        for layer in range(3, 48)
        for expert in range(128)
        for part in ("gate", "up", "down")
    }
    header |= {f"model.layers.{layer}.input_layernorm.weight": ("BF16", (2048,)) for layer in range(48)}
    summary = summarize({"a": header}, source="hf://a/b", revision="0" * 40, config={})
    folded = [(group.pattern, group.indices) for group in summary.tensors]
    assert folded == [
        ("model.layers.{}.input_layernorm.weight", ("0-47",)),
        ("model.layers.{}.mlp.experts.{}.down_proj.weight", ("3-47", "0-127")),
        ("model.layers.{}.mlp.experts.{}.gate_proj.weight", ("3-47", "0-127")),
        ("model.layers.{}.mlp.experts.{}.up_proj.weight", ("3-47", "0-127")),
    ]
    assert len(summary.to_json()) < 1000


def test_a_configuration_with_infinity_is_kept_verbatim() -> None:
    config = json.loads('{"time_step_limit": [0.0, Infinity]}')
    summary = summarize({}, source="hf://a/b", revision=None, config=config)
    assert CheckpointSummary.from_json(summary.to_json()).config == config


def test_a_tensor_in_two_files_is_refused() -> None:
    header = {"w": ("BF16", (2,))}
    with pytest.raises(ContractError, match=r"w is in a and in b; keep it in one file only\."):
        summarize({"a": header, "b": header}, source="hf://a/b", revision=None, config={})


def test_an_unknown_type_is_refused() -> None:
    with pytest.raises(ContractError, match="dtype is F7"):
        summarize({"a": {"w": ("F7", (2,))}}, source="hf://a/b", revision=None, config={})


@pytest.mark.parametrize(
    ("change_of", "sentence"),
    [
        pytest.param(
            {"totalBytes": 7}, "totalBytes is 7; the tensors add up to 8", id="bytes that do not add up"
        ),
        pytest.param({"indices": ["0-1", "2"]}, "needs one for each {}", id="more ranges than places"),
        pytest.param({"indices": ["1-0"]}, "ranges must go upwards", id="a range that goes down"),
        pytest.param(
            {"indices": ["0,1"]}, "ranges must go upwards with gaps", id="ranges that should be one"
        ),
        pytest.param(
            {"indices": ["0-999999999"]}, "at most 1000000 are read", id="an absurd number of tensors"
        ),
        pytest.param({"dtype": "F7"}, "must be one of BOOL", id="an unknown type"),
        pytest.param({"shape": [-1]}, "shape[0] is -1", id="a negative size"),
    ],
)
def test_a_bad_summary_gets_a_sentence(change_of: dict[str, Any], sentence: str) -> None:
    group: dict[str, Any] = {"pattern": "l.{}.w", "dtype": "BF16", "shape": [2], "indices": ["0-1"]}
    document: dict[str, Any] = {"source": "x", "config": {}, "totalBytes": 8, "files": 1, "schema": 1}
    for key, value in change_of.items():
        (group if key in group else document)[key] = value
    with pytest.raises(ContractError) as caught:
        CheckpointSummary.from_dict({**document, "tensors": [group]})
    assert sentence in str(caught.value)


@given(st.sets(st.integers(0, 10_000), min_size=1, max_size=50))
def test_ranges_name_exactly_their_numbers(numbers: set[int]) -> None:
    header = {f"l.{number}.w": ("U8", (1,)) for number in numbers}
    (group,) = summarize({"a": header}, source="x", revision=None, config={}).tensors
    assert parse_ranges(group.indices[0]) == sorted(numbers)
    assert TensorGroup.from_json(group.to_json()) == group
