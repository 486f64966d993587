"""What people and machines read: status.plan, the table, and JSON that survives a round trip."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from stowage.api.conditions import Reason
from stowage.api.v1alpha1.plan_status import PLAN_MAX_BYTES, PlanStatus
from stowage.planning.explain import grouped, result_document, status_plan, summary
from stowage.planning.explain.table import plan_table
from stowage.planning.plan import Plan, PlanRequest, PlanResult, Rejection
from tests.hardware.objects import gpu_node, node
from tests.planning.builders import (
    chosen,
    inventory_of,
    llama_1b,
    llama_8b,
    llama_70b,
    make_plan,
    mixed_nodes,
    spec_of,
)


def fitting() -> PlanResult:
    return make_plan(llama_8b(), inventory_of(mixed_nodes()), 2)


def refusing() -> PlanResult:
    return make_plan(llama_70b(), inventory_of([gpu_node("n", "NVIDIA-L4", 4)]))


def test_the_summary_is_one_sentence() -> None:
    words = summary(fitting())
    assert words.startswith("1x NVIDIA-L4 (tp1), bf16, ")
    assert "tokens of context" in words
    assert words.endswith("at once.")


def test_status_plan_shows_choice_ledger_and_places() -> None:
    result = fitting()
    plan, shown = chosen(result), status_plan(result)
    assert PlanStatus.model_validate(shown).to_dict() == shown
    assert shown["gpus"] == "1x NVIDIA-L4"
    assert shown["parallel"] == "tp1"
    assert shown["precision"] == "bf16"
    assert shown["hash"] == plan.digest()[:16]
    assert shown["kvTokens"] == plan.ledger.kv_tokens
    assert shown["nodes"] == [{"name": "l4", "gpuProduct": "NVIDIA-L4", "replicas": 2}]
    ledger = shown["ledger"]
    parts = ("weights", "persistent", "nonTorch", "activations", "cudaGraphs", "kvCache", "margin")
    assert sum(ledger[part] for part in parts) == pytest.approx(ledger["total"], abs=2)


def test_status_plan_of_a_refusal_says_why_and_what_would_fit() -> None:
    shown = status_plan(refusing())
    assert "tp4 on NVIDIA-L4" in shown["summary"]
    assert shown["placement"] == "Impossible"
    assert shown["notes"][0].startswith("Would fit: 8x NVIDIA-L4")
    assert shown["rejections"][0]["reason"] == "InsufficientMemory"
    assert shown["rejections"][0]["count"] == 3


def test_status_plan_stays_small_whatever_happens() -> None:
    many = tuple(Rejection(f"tp{n}", reason, "long " * 400) for reason in Reason for n in range(5))
    notes = ("x" * 500,) * 40
    result = fitting()
    crowded = replace(result, rejections=many, plan=replace(chosen(result), notes=notes))
    text = json.dumps(status_plan(crowded), separators=(",", ":"), ensure_ascii=False)
    assert len(text.encode()) <= PLAN_MAX_BYTES
    assert len(status_plan(crowded)["rejections"]) <= 10


def test_rejections_are_grouped_by_reason_the_most_frequent_first() -> None:
    rejections = [
        Rejection("a", Reason.UNKNOWN_GPU, "one"),
        Rejection("b", Reason.INSUFFICIENT_MEMORY, "two"),
        Rejection("c", Reason.INSUFFICIENT_MEMORY, "three"),
    ]
    assert list(grouped(rejections)) == [("InsufficientMemory", 2, "c: three"), ("UnknownGPU", 1, "a: one")]


def test_a_plan_survives_being_written_down() -> None:
    for result in (fitting(), make_plan(llama_1b(), inventory_of([node("n")]), hardware={"class": "CPU"})):
        plan = chosen(result)
        assert Plan.from_json(plan.to_json()) == plan
        assert Plan.from_json(plan.to_json()).to_json() == plan.to_json()


def test_a_plan_of_a_newer_version_can_be_read() -> None:
    plan = chosen(fitting())
    document = json.loads(plan.to_json())
    document["added_later"] = {"x": 1}
    del document["notes"]
    assert Plan.from_json(json.dumps(document)) == replace(plan, notes=())


@pytest.mark.parametrize(
    "damage",
    [
        pytest.param({"settings": 7}, id="a part that is not an object"),
        pytest.param({"gpus_per_replica": "one"}, id="a number that is a word"),
        pytest.param({"gpus_per_replica": True}, id="a number that is a truth value"),
        pytest.param({"notes": "x"}, id="a list that is a word"),
        pytest.param({"requests": {"extended": {"nvidia.com/gpu": "1"}}}, id="a device count that is a word"),
        pytest.param({"settings": {}}, id="a part that lacks its fields"),
    ],
)
def test_a_damaged_plan_is_not_read(damage: dict[str, object]) -> None:
    document = {**json.loads(chosen(fitting()).to_json()), **damage}
    with pytest.raises((KeyError, TypeError, ValueError)):
        Plan.from_json(json.dumps(document))


def test_the_digest_is_about_pods_only() -> None:
    plan = chosen(fitting())
    assert replace(plan, notes=("other",)).digest() == plan.digest()
    assert replace(plan, placement=replace(plan.placement, node_names=())).digest() == plan.digest()
    assert replace(plan, settings=replace(plan.settings, max_num_seqs=7)).digest() != plan.digest()
    assert replace(plan, model_revision="d" * 40).digest() != plan.digest()


def test_the_document_for_machines_is_json() -> None:
    for result in (fitting(), refusing()):
        document = json.loads(json.dumps(result_document(result)))
        assert document["fits"] is (result.plan is not None)
        assert document["reason"] == (None if result.refusal is None else result.refusal.reason.value)


def test_the_table_shows_choice_memory_and_rejections_in_about_thirty_lines() -> None:
    result = make_plan(llama_8b(), inventory_of([gpu_node("a", "NVIDIA-A100-SXM4-80GB", 1)]))
    table = plan_table(PlanRequest(spec_of(), llama_8b(), 1), result)
    assert "1x NVIDIA-A100-SXM4-80GB (tp1) on a" in table
    assert "weights" in table
    assert "█" in table
    assert len(table.splitlines()) <= 30
    assert max(len(line) for line in table.splitlines()) <= 125


def test_the_table_of_a_refusal_leads_to_what_would_fit() -> None:
    table = plan_table(PlanRequest(spec_of(), llama_70b(), 1), refusing())
    assert "Refused    InsufficientMemory: The closest shape is tp4 on NVIDIA-L4" in table
    assert "- 8x NVIDIA-L4 on one node" in table
