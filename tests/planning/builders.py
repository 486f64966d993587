"""Model profiles, specs and inventories for planning tests."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from functools import cache
from typing import Any

from stowage.api.refusal import Refusal
from stowage.api.v1alpha1 import LLMDeploymentSpec
from stowage.hardware.inventory import Inventory, build_inventory, pod_usage, quota_room
from stowage.hardware.node import node_facts
from stowage.model.config_json import read_profile
from stowage.model.profile import ModelProfile
from stowage.planning.plan import Plan, PlanRequest, PlanResult, plan
from stowage_runtime.contract import CheckpointSummary
from tests.hardware.objects import gpu_node, node
from tests.model.support import config_of


def llama_config(**changes: Any) -> dict[str, Any]:
    """The published Llama-3.1-8B, or another size by `changes`."""
    return {**config_of("meta-llama--Llama-3.1-8B-Instruct"), **changes}


def profile_of(config: Mapping[str, Any], name: str = "org/model") -> ModelProfile:
    summary = CheckpointSummary(
        source=f"hf://{name}", revision="c" * 40, config=dict(config), tensors=(), total_bytes=0, files=0
    )
    profile = read_profile(summary)
    assert not isinstance(profile, Refusal), profile
    return profile


@cache
def llama_8b() -> ModelProfile:
    return profile_of(llama_config(), "meta-llama/Llama-3.1-8B")


@cache
def llama_70b() -> ModelProfile:
    return profile_of(
        llama_config(hidden_size=8192, intermediate_size=28672, num_hidden_layers=80, num_attention_heads=64),
        "meta-llama/Llama-3.1-70B",
    )


@cache
def llama_1b() -> ModelProfile:
    return profile_of(
        llama_config(
            hidden_size=2048,
            intermediate_size=8192,
            num_hidden_layers=16,
            head_dim=64,
            tie_word_embeddings=True,
        ),
        "meta-llama/Llama-3.2-1B",
    )


def spec_of(**parts: Any) -> LLMDeploymentSpec:
    return LLMDeploymentSpec.model_validate({"model": {"source": "hf://org/model"}, **parts})


def inventory_of(
    nodes: Iterable[Mapping[str, Any]],
    pods: Iterable[Mapping[str, Any]] = (),
    quotas: Iterable[Mapping[str, Any]] = (),
) -> Inventory:
    return build_inventory(
        [node_facts(each) for each in nodes],
        [pod_usage(each) for each in pods],
        [quota_room(each) for each in quotas],
    )


def mixed_nodes() -> list[dict[str, Any]]:
    """One node of each usual kind."""
    return [
        gpu_node("h100", "NVIDIA-H100-80GB-HBM3", 8),
        gpu_node("a100", "NVIDIA-A100-SXM4-80GB", 8),
        gpu_node("l40s", "NVIDIA-L40S", 8),
        gpu_node("l4", "NVIDIA-L4", 4),
        node("cpu", cpu="16", memory="64Gi"),
    ]


def make_plan(profile: ModelProfile, inventory: Inventory, replicas: int = 1, **parts: Any) -> PlanResult:
    return plan(PlanRequest(spec_of(**parts), profile, replicas), inventory)


def chosen(result: PlanResult) -> Plan:
    assert result.plan is not None, result.refusal
    return result.plan


def refused(result: PlanResult) -> Refusal:
    assert result.plan is None
    assert result.refusal is not None
    return result.refusal
