"""Rendered objects: golden bytes, rules of the API, and what must never be in them."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from stowage.api.plan_options import PLAN_OPTIONS
from stowage.planning.plan import EngineSettings
from stowage.render import names
from stowage.render.vllm_args import vllm_args
from tests.engine.simulation import Simulation, cpu_node, gpu_node

GOLDEN = Path(__file__).parent / "golden"

FULL = {
    "model": {
        "source": "hf://meta-llama/Llama-3.1-8B",
        "servedName": "chat",
        "tokenSecretRef": {"name": "hub"},
    },
    "workload": {"maxModelLen": 8192, "concurrencyPerReplica": 4},
    "parallelism": {"tensor": 2},
    "engine": {"version": "0.32.0", "gpuMemoryUtilization": 0.9, "maxNumSeqs": 64, "enforceEager": True},
    "hardware": {
        "nodeSelector": {"pool": "llm"},
        "tolerations": [{"key": "dedicated", "operator": "Equal", "value": "llm", "effect": "NoSchedule"}],
    },
    "runtime": {
        "image": "example.com/vllm:v0.32.0",
        "args": ["--enable-log-requests"],
        "env": [{"name": "VLLM_LOGGING_LEVEL", "value": "DEBUG"}],
        "resources": {"limits": {"memory": "64Gi"}},
        "startupTimeout": "20m",
        "imagePullSecrets": [{"name": "registry"}],
        "serviceAccountName": "llm",
        "priorityClassName": "high",
        "podLabels": {"team": "search"},
        "podAnnotations": {"example.com/owner": "search"},
    },
}

MINIMAL = {"model": {"source": "hf://meta-llama/Llama-3.1-8B"}}
ON_CPU = {**MINIMAL, "hardware": {"class": "CPU"}, "workload": {"maxModelLen": 2048}}
ON_A_CLAIM = {"model": {"source": "pvc://models/llama/8b"}}


def rendered(spec: dict[str, Any], **options: Any) -> list[dict[str, Any]]:
    node = gpu_node("gpu-1")
    node["metadata"]["labels"]["pool"] = "llm"
    sim = Simulation(spec=spec, nodes=[node, cpu_node("cpu-1", memory="64Gi")], **options)
    sim.settle()
    objects = [obj for obj in sim.step().apply if obj["kind"] != "Pod"]
    assert objects, sim.resource["status"]["conditions"]
    return [dict(obj) for obj in objects]


def without_record(objects: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The record repeats spec, plan and template; its form is tested by reading it back."""
    for obj in objects:
        obj["metadata"] = {key: value for key, value in obj["metadata"].items() if key != "annotations"}
    return objects


@pytest.mark.parametrize(
    ("name", "spec"),
    [
        pytest.param("minimal", MINIMAL, id="the minimal manifest"),
        pytest.param("full", FULL, id="every field of the runtime"),
        pytest.param("cpu", ON_CPU, id="the CPU class"),
        pytest.param("claim", ON_A_CLAIM, id="a model on a claim"),
    ],
)
def test_objects_are_the_golden_ones(name: str, spec: dict[str, Any]) -> None:
    text = yaml.safe_dump_all(without_record(rendered(spec)), sort_keys=True, width=120)
    path = GOLDEN / f"{name}.yaml"
    if os.environ.get("UPDATE_GOLDEN"):
        path.parent.mkdir(exist_ok=True)
        path.write_text(text, encoding="utf-8")
    assert text == path.read_text(encoding="utf-8"), "set UPDATE_GOLDEN=1 and look at the difference"


def containers(objects: list[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    for obj in objects:
        if obj["kind"] == "Deployment":
            pod = obj["spec"]["template"]["spec"]
            yield from (*pod["initContainers"], *pod["containers"])


@pytest.mark.parametrize("spec", [MINIMAL, FULL, ON_CPU, ON_A_CLAIM], ids=["minimal", "full", "cpu", "claim"])
def test_pods_meet_the_restricted_standard(spec: dict[str, Any]) -> None:
    objects = rendered(spec)
    pod = next(obj for obj in objects if obj["kind"] == "Deployment")["spec"]["template"]["spec"]
    assert pod["securityContext"]["runAsNonRoot"] is True
    assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    assert pod["automountServiceAccountToken"] is False
    for container in containers(objects):
        context = container["securityContext"]
        assert context["allowPrivilegeEscalation"] is False
        assert context["readOnlyRootFilesystem"] is True
        assert context["capabilities"] == {"drop": ["ALL"]}


def test_every_object_carries_owner_and_labels() -> None:
    for obj in rendered(FULL):
        metadata = obj["metadata"]
        assert metadata["labels"][names.MANAGED_BY_LABEL] == "stowage"
        assert metadata["labels"][names.NAME_LABEL] == "llama"
        (owner,) = metadata["ownerReferences"]
        assert (owner["uid"], owner["controller"], owner["blockOwnerDeletion"]) == ("uid-1", True, True)


def test_the_progress_deadline_is_longer_than_the_start_up_budget() -> None:
    deployment = next(obj for obj in rendered(FULL) if obj["kind"] == "Deployment")
    probe = deployment["spec"]["template"]["spec"]["containers"][0]["startupProbe"]
    assert deployment["spec"]["progressDeadlineSeconds"] > probe["failureThreshold"] * probe["periodSeconds"]


def test_the_budget_never_blocks_a_drain() -> None:
    budget = next(obj for obj in rendered(MINIMAL) if obj["kind"] == "PodDisruptionBudget")["spec"]
    assert budget["maxUnavailable"] == 1
    assert budget["unhealthyPodEvictionPolicy"] == "AlwaysAllow"


def test_selectors_use_only_labels_that_never_change() -> None:
    deployment = next(obj for obj in rendered(MINIMAL) if obj["kind"] == "Deployment")
    assert set(deployment["spec"]["selector"]["matchLabels"]) == {names.NAME_LABEL, names.ROLE_LABEL}


settings = st.builds(
    EngineSettings,
    tensor_parallel_size=st.integers(1, 8),
    pipeline_parallel_size=st.integers(1, 2),
    dtype=st.sampled_from(["bfloat16", "float16"]),
    kv_cache_dtype=st.sampled_from(["auto", "bfloat16"]),
    gpu_memory_utilization=st.none() | st.floats(0.1, 1.0),
    max_model_len=st.integers(1, 200_000),
    max_num_seqs=st.integers(1, 1024),
    max_num_batched_tokens=st.integers(1, 65536),
    enforce_eager=st.booleans(),
    kv_cache_memory_bytes=st.none() | st.integers(1, 1 << 40),
)


@given(settings)
def test_every_option_that_the_plan_sets_is_refused_in_the_users_own_arguments(
    chosen: EngineSettings,
) -> None:
    options = [argument for argument in vllm_args(chosen, ()) if argument.startswith("--")]
    assert set(options) <= set(PLAN_OPTIONS)
    assert len(options) == len(set(options))


@given(settings, st.lists(st.sampled_from(["--enable-log-requests", "--seed=1"]), max_size=2))
def test_rendering_is_deterministic_and_the_users_arguments_come_last(
    chosen: EngineSettings, extra: list[str]
) -> None:
    first = vllm_args(chosen, extra)
    assert first == vllm_args(chosen, list(extra))
    assert first[len(first) - len(extra) :] == extra
