"""The rules that hold for every LLMDeployment, played through on a simulated cluster."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from stowage.api.conditions import Reason
from stowage.api.refusal import Refusal
from stowage.engine.record import read_in_force
from stowage.render import names
from stowage.world import Key, ModelFailed, ModelResolved, ObjectRef
from tests.engine.simulation import (
    COMMIT,
    OPTIONS,
    START,
    Simulation,
    cpu_node,
    gpu_node,
    gpu_pod,
    summary,
)


def test_the_minimal_manifest_becomes_four_objects_and_serves() -> None:
    sim = Simulation()
    sim.serve()
    assert sim.kinds() == ["ConfigMap", "Deployment", "PodDisruptionBudget", "Service"]
    assert sim.condition("Ready")[:2] == ("True", "Serving")
    assert sim.resource["status"]["replicaSummary"] == "1/1"
    assert sim.resource["status"]["plan"]["gpus"] == "1x NVIDIA-L4"


def test_nothing_is_applied_before_the_model_is_known() -> None:
    sim = Simulation()
    outcome = sim.step()
    assert outcome.apply == ()
    assert outcome.resolve is not None
    assert sim.condition("Accepted")[:2] == ("Unknown", "ResolvingModel")


def test_a_converged_object_is_answered_with_the_same_outcome() -> None:
    sim = Simulation()
    sim.serve()
    first, second = sim.step(), sim.step()
    assert first.apply == second.apply
    assert first.status == second.status
    assert first.events == second.events == ()
    assert first.delete == ()


def test_a_new_node_never_changes_a_serving_plan() -> None:
    sim = Simulation()
    sim.serve()
    before = sim.step().apply
    sim.nodes.append(gpu_node("h100", 8, "NVIDIA-H100-80GB-HBM3", 81559, "9.0"))
    assert sim.step().apply == before


def test_a_lost_status_never_changes_a_serving_plan() -> None:
    sim = Simulation()
    sim.serve()
    before = sim.step().apply
    del sim.resource["status"]
    sim.resolution = None
    outcome = sim.step()
    assert outcome.apply == before
    assert outcome.resolve is None
    assert sim.condition("Ready")[:2] == ("True", "Serving")


def test_an_operator_upgrade_restarts_no_pod() -> None:
    sim = Simulation()
    sim.serve()
    before = sim.step().apply
    sim.upgrade("9.9.9")
    assert sim.step().apply == before


def test_the_next_real_change_brings_the_new_agent_image() -> None:
    sim = Simulation()
    sim.serve()
    sim.upgrade("9.9.9")
    sim.edit(runtime={"env": [{"name": "VLLM_LOGGING_LEVEL", "value": "DEBUG"}]})
    sim.settle()
    pod = sim.child("Deployment")["spec"]["template"]["spec"]
    assert pod["initContainers"][0]["image"].endswith(":9.9.9")


def test_a_changed_environment_keeps_the_plan() -> None:
    sim = Simulation()
    sim.serve()
    plan = read_in_force(sim.deployment()).plan  # type: ignore[union-attr]
    sim.edit(runtime={"env": [{"name": "VLLM_LOGGING_LEVEL", "value": "DEBUG"}]})
    sim.settle()
    assert read_in_force(sim.deployment()).plan == plan  # type: ignore[union-attr]


def test_scaling_changes_replicas_and_nothing_else() -> None:
    sim = Simulation()
    sim.serve()
    template = sim.child("Deployment")["spec"]["template"]
    sim.edit(replicas=3)
    outcome = sim.step()
    assert sim.child("Deployment")["spec"]["replicas"] == 3
    assert sim.child("Deployment")["spec"]["template"] == template
    assert outcome.resolve is None


def test_scaling_up_leaves_a_serving_object_ready() -> None:
    sim = Simulation()
    sim.serve()
    sim.edit(replicas=3)
    sim.settle()
    assert sim.condition("Ready")[:2] == ("True", "Serving")
    assert sim.condition("Progressing")[:2] == ("True", "Scaling")


def test_a_removed_record_costs_a_new_plan_and_no_restart() -> None:
    sim = Simulation()
    sim.serve()
    template = sim.child("Deployment")["spec"]["template"]
    sim.child("Deployment")["metadata"]["annotations"].clear()
    sim.settle()
    assert sim.child("Deployment")["spec"]["template"] == template


@pytest.mark.parametrize("text", ["", "not json", "{}", '{"inputs": "x", "plan": []}'])
def test_a_damaged_record_is_no_record(text: str) -> None:
    sim = Simulation()
    sim.serve()
    deployment = sim.child("Deployment")
    deployment["metadata"]["annotations"][names.IN_FORCE_ANNOTATION] = text
    assert read_in_force(deployment) is None


def test_an_impossible_edit_leaves_the_old_plan_serving_and_says_why() -> None:
    sim = Simulation()
    sim.serve()
    before = sim.child("Deployment")["spec"]["template"]
    sim.edit(parallelism={"tensor": 3})
    sim.settle()
    assert sim.child("Deployment")["spec"]["template"] == before
    assert sim.condition("Available")[0] == "True"
    assert sim.condition("Planned")[:2] == ("False", "InvalidParallelism")
    assert sim.condition("Ready")[:2] == ("False", "InvalidParallelism")
    assert sim.condition("Degraded")[:2] == ("True", "PreviousPlanServing")


def test_an_unsupported_edit_leaves_the_old_plan_serving() -> None:
    sim = Simulation()
    sim.serve()
    sim.edit(scaling={"mode": "Native", "maxReplicas": 3})
    sim.settle()
    assert sim.condition("Accepted")[:2] == ("False", "NotSupported")
    assert sim.condition("Available")[0] == "True"
    assert sim.deployment() is not None


def test_scaling_still_works_while_an_edit_is_refused() -> None:
    sim = Simulation()
    sim.serve()
    sim.edit(parallelism={"tensor": 3}, replicas=2)
    sim.settle()
    assert sim.child("Deployment")["spec"]["replicas"] == 2


def test_putting_the_old_spec_back_heals_without_a_restart() -> None:
    sim = Simulation()
    sim.serve()
    template = sim.child("Deployment")["spec"]["template"]
    sim.edit(parallelism={"tensor": 3})
    sim.settle()
    sim.edit(parallelism={})
    sim.settle()
    assert sim.child("Deployment")["spec"]["template"] == template
    assert sim.condition("Ready")[:2] == ("True", "Serving")


def test_no_replica_is_rendered_that_has_no_place() -> None:
    sim = Simulation(nodes=[gpu_node("gpu-1", 2)])
    sim.edit(replicas=5)
    sim.serve()
    assert sim.child("Deployment")["spec"]["replicas"] == 2
    status, reason, message = sim.condition("AbleToScale")
    assert (status, reason) == ("False", "InsufficientGPUs")
    assert "5 replicas are asked for and 2 can be placed" in message


def test_freed_gpus_are_used_when_they_appear() -> None:
    sim = Simulation(nodes=[gpu_node("gpu-1", 2)])
    sim.edit(replicas=3)
    sim.serve()
    sim.nodes.append(gpu_node("gpu-2", 2))
    sim.settle()
    assert sim.child("Deployment")["spec"]["replicas"] == 3


def test_surge_when_a_spare_gpu_exists() -> None:
    sim = Simulation(nodes=[gpu_node("gpu-1", 2)])
    sim.serve()
    sim.edit(engine={"maxNumSeqs": 16})
    sim.settle()
    assert sim.child("Deployment")["spec"]["strategy"]["rollingUpdate"] == {
        "maxSurge": 1,
        "maxUnavailable": 0,
    }
    assert sim.condition("Ready")[:2] == ("False", "RollingOut")


def test_in_place_when_no_spare_gpu_exists_and_it_says_so() -> None:
    sim = Simulation(nodes=[gpu_node("gpu-1", 1)])
    sim.serve()
    sim.edit(engine={"maxNumSeqs": 16})
    sim.settle()
    assert sim.child("Deployment")["spec"]["strategy"]["rollingUpdate"] == {
        "maxSurge": 0,
        "maxUnavailable": 1,
    }
    assert sim.condition("Progressing")[:2] == ("True", "ReplacingInPlace")


def test_a_surge_that_cannot_be_waits_and_keeps_serving() -> None:
    sim = Simulation(nodes=[gpu_node("gpu-1", 1)])
    sim.serve()
    template = sim.child("Deployment")["spec"]["template"]
    sim.edit(engine={"maxNumSeqs": 16}, rollout={"strategy": "Surge"})
    sim.settle()
    assert sim.child("Deployment")["spec"]["template"] == template
    assert sim.condition("Progressing")[:2] == ("True", "WaitingForSpareGPUs")
    sim.nodes.append(gpu_node("gpu-2", 1))
    sim.settle()
    assert sim.child("Deployment")["spec"]["template"] != template


def test_the_strategy_does_not_flap_when_spare_gpus_come_and_go() -> None:
    sim = Simulation(nodes=[gpu_node("gpu-1", 1)])
    sim.serve()
    strategy = sim.child("Deployment")["spec"]["strategy"]
    sim.nodes.append(gpu_node("gpu-2", 4))
    sim.settle()
    assert sim.child("Deployment")["spec"]["strategy"] == strategy


def test_launch_configurations_are_kept_while_a_replica_set_refers_to_them() -> None:
    sim = Simulation()
    sim.serve()
    old = sim.child("ConfigMap")["metadata"]["name"]
    replica_set = {
        "apiVersion": "apps/v1",
        "kind": "ReplicaSet",
        "metadata": {
            "name": "llama-1",
            "namespace": "default",
            "ownerReferences": [{"uid": sim.child("Deployment")["metadata"]["uid"]}],
        },
        "spec": {"template": sim.child("Deployment")["spec"]["template"]},
    }
    sim.children[ObjectRef("apps/v1", "ReplicaSet", "default", "llama-1")] = replica_set
    sim.edit(engine={"maxNumSeqs": 16})
    sim.settle()
    sim.run_pods()
    sim.settle()
    configs = {ref.name for ref in sim.children if ref.kind == "ConfigMap"}
    assert old in configs
    assert len(configs) == 2
    del sim.children[ObjectRef("apps/v1", "ReplicaSet", "default", "llama-1")]
    sim.settle()
    assert old not in {ref.name for ref in sim.children if ref.kind == "ConfigMap"}


def test_a_name_that_is_taken_is_said_and_still_wanted() -> None:
    sim = Simulation(taken={ObjectRef("apps/v1", "Deployment", "default", "llama"): "no owner"})
    sim.settle()
    status, reason, message = sim.condition("Accepted")
    assert (status, reason) == ("False", "NameTaken")
    assert "Deployment llama" in message
    outcome = sim.step()
    assert any(obj["kind"] == "Deployment" for obj in outcome.apply), "the shell looks at it again"


def test_what_the_api_server_refuses_is_told_in_its_own_words() -> None:
    sim = Simulation(refused="admission webhook says no")
    sim.settle()
    assert sim.condition("Ready")[:2] == ("False", "ApplyFailed")
    assert "admission webhook says no" in sim.condition("Degraded")[2]
    sim.refused = None
    sim.serve()
    assert sim.condition("Ready")[:2] == ("True", "Serving")


def test_younger_objects_wait_for_older_ones() -> None:
    sim = Simulation(ahead=(Key("default", "older"),))
    sim.settle()
    assert sim.deployment() is None
    assert sim.condition("Planned")[0] == "Unknown"
    assert "default/older" in sim.condition("Planned")[2]
    sim.ahead = ()
    sim.settle()
    assert sim.deployment() is not None


def test_a_serving_object_does_not_wait_for_anybody() -> None:
    sim = Simulation()
    sim.serve()
    sim.ahead = (Key("default", "older"),)
    sim.settle()
    assert sim.condition("Ready")[0] == "True"


def test_an_object_that_is_being_deleted_gets_nothing() -> None:
    sim = Simulation()
    sim.serve()
    sim.resource["metadata"]["deletionTimestamp"] = "2026-01-01T00:00:00Z"
    outcome = sim.step()
    assert (outcome.apply, outcome.delete, outcome.status) == ((), (), None)


def test_children_of_an_earlier_object_of_the_same_name_are_not_ours() -> None:
    sim = Simulation()
    sim.serve()
    sim.resource["metadata"]["uid"] = "uid-2"
    sim.resolution = None
    outcome = sim.step()
    assert outcome.resolve is not None
    assert outcome.delete == ()


def test_mode_plan_plans_and_launches_nothing() -> None:
    sim = Simulation()
    sim.edit(mode="Plan")
    sim.settle()
    assert sim.children == {}
    assert sim.condition("Planned")[:2] == ("True", "Fits")
    assert sim.condition("Ready")[:2] == ("False", "PlanOnly")


def test_zero_replicas_is_said_and_keeps_the_plan() -> None:
    sim = Simulation()
    sim.serve()
    sim.edit(replicas=0)
    sim.settle()
    sim.run_pods()
    sim.settle()
    assert sim.child("Deployment")["spec"]["replicas"] == 0
    assert sim.condition("Ready")[:2] == ("False", "ScaledToZero")


def test_a_model_that_cannot_be_read_is_asked_for_again_at_its_time() -> None:
    refusal = Refusal(Reason.HUB_UNREACHABLE, "The Hub does not answer.")
    sim = Simulation(model=ModelFailed(refusal, START + timedelta(seconds=61)))
    sim.step()
    outcome = sim.step()
    assert sim.condition("Ready")[:2] == ("False", "HubUnreachable")
    assert outcome.requeue_after == timedelta(seconds=60)
    assert outcome.resolve is not None


def test_while_the_next_try_is_under_way_nobody_looks_again_and_again() -> None:
    """The answer wakes the key; a turn that is due at once would keep the event loop from ever getting it."""
    refusal = Refusal(Reason.HUB_UNREACHABLE, "The Hub does not answer.")
    sim = Simulation(model=ModelFailed(refusal, START))
    sim.step()
    outcome = sim.step()
    assert outcome.resolve is not None
    assert outcome.requeue_after is None


def test_a_model_that_does_not_exist_is_not_asked_for_again() -> None:
    refusal = Refusal(Reason.MODEL_NOT_FOUND, "The Hub has no such model.")
    sim = Simulation(model=ModelFailed(refusal, None))
    sim.settle()
    outcome = sim.step()
    assert outcome.resolve is None
    assert outcome.requeue_after is None


def test_a_gated_model_is_read_by_a_pod_that_goes_away_again() -> None:
    sim = Simulation()
    sim.edit(model={"source": "hf://meta-llama/Llama-3.1-8B", "tokenSecretRef": {"name": "hub"}})
    outcome = sim.step()
    (pod,) = outcome.apply
    assert pod["kind"] == "Pod"
    token = next(item for item in pod["spec"]["containers"][0]["env"] if item["name"] == "HF_TOKEN")
    assert token["valueFrom"]["secretKeyRef"] == {"name": "hub", "key": "token"}
    assert outcome.resolve is not None
    assert outcome.resolve.inspection_pod == pod["metadata"]["name"]
    sim.settle()
    assert "Pod" not in sim.kinds()
    assert sim.deployment() is not None


def test_the_inspection_pod_is_told_revision_and_hub() -> None:
    sim = Simulation(options=replace(OPTIONS, hub_endpoint="http://hub.example"))
    sim.edit(model={"source": "hf://org/gated", "revision": "v1", "tokenSecretRef": {"name": "hub"}})
    (pod,) = sim.step().apply
    container = pod["spec"]["containers"][0]
    assert container["command"][-4:] == ["--source", "hf://org/gated", "--revision", "v1"]
    assert {"name": "HF_ENDPOINT", "value": "http://hub.example"} in container["env"]


def test_a_model_on_a_claim_is_inspected_where_the_claim_can_be_mounted() -> None:
    sim = Simulation()
    sim.edit(model={"source": "pvc://models/llama/8b"})
    (pod,) = sim.step().apply
    assert {"name": "model", "persistentVolumeClaim": {"claimName": "models", "readOnly": True}} in pod[
        "spec"
    ]["volumes"]
    (mount,) = [item for item in pod["spec"]["containers"][0]["volumeMounts"] if item["name"] == "model"]
    assert mount == {"name": "model", "mountPath": "/stowage/model", "readOnly": True, "subPath": "llama/8b"}


def test_a_pod_monitor_comes_and_goes_with_its_kind() -> None:
    sim = Simulation(installed_kinds=frozenset({"monitoring.coreos.com/v1/PodMonitor"}))
    sim.serve()
    assert "PodMonitor" in sim.kinds()


def test_cpu_is_never_chosen_silently() -> None:
    sim = Simulation(nodes=[cpu_node("cpu-1")])
    sim.settle()
    assert sim.condition("Planned")[0] == "False"
    assert sim.deployment() is None


def test_a_plan_whose_only_nodes_vanished_before_any_pod_ran_is_made_anew() -> None:
    sim = Simulation()
    sim.settle()
    assert sim.resource["status"]["plan"]["gpuProduct"] == "NVIDIA-L4"
    sim.nodes = [gpu_node("h100", 8, "NVIDIA-H100-80GB-HBM3", 81559, "9.0")]
    sim.settle()
    assert sim.resource["status"]["plan"]["gpuProduct"] == "NVIDIA-H100-80GB-HBM3"


def test_the_selector_matches_one_pod_per_replica() -> None:
    sim = Simulation()
    sim.serve()
    selector = dict(part.split("=") for part in sim.resource["status"]["selector"].split(","))
    assert all(selector.items() <= pod["metadata"]["labels"].items() for pod in sim.pods)


def test_no_token_appears_anywhere_but_by_reference() -> None:
    sim = Simulation()
    sim.edit(model={"source": "hf://meta-llama/Llama-3.1-8B", "tokenSecretRef": {"name": "hub"}})
    sim.serve()
    for obj in sim.children.values():
        assert "hf_" not in str(obj)
    env = sim.child("Deployment")["spec"]["template"]["spec"]["containers"][0]["env"]
    assert [item for item in env if item["name"] == "HF_TOKEN"] == [
        {"name": "HF_TOKEN", "valueFrom": {"secretKeyRef": {"name": "hub", "key": "token"}}}
    ]


def test_a_bigger_shape_gets_only_as_many_replicas_as_have_a_place_once_the_old_ones_are_gone() -> None:
    sim = Simulation()
    sim.edit(replicas=2)
    sim.serve()
    sim.edit(parallelism={"tensor": 4})
    sim.settle()
    assert sim.child("Deployment")["spec"]["replicas"] == 1
    assert sim.condition("AbleToScale")[:2] == ("False", "InsufficientGPUs")


def test_a_cordoned_node_keeps_its_replica_and_others_take_new_ones() -> None:
    sim = Simulation(nodes=[gpu_node(name, 1) for name in ("a", "b", "c")])
    sim.edit(replicas=2)
    sim.serve()
    used = {pod["spec"]["nodeName"] for pod in sim.pods}
    next(node for node in sim.nodes if node["metadata"]["name"] in used)["spec"]["unschedulable"] = True
    sim.edit(replicas=3)
    sim.settle()
    assert sim.child("Deployment")["spec"]["replicas"] == 3


def test_a_template_without_any_place_waits_and_the_old_one_goes_on() -> None:
    sim = Simulation(nodes=[gpu_node("a", 1)])
    sim.serve()
    template = sim.child("Deployment")["spec"]["template"]
    sim.nodes[0]["spec"]["unschedulable"] = True
    sim.edit(runtime={"env": [{"name": "VLLM_LOGGING_LEVEL", "value": "DEBUG"}]})
    sim.settle()
    assert sim.child("Deployment")["spec"]["template"] == template
    assert sim.child("Deployment")["spec"]["replicas"] == 1
    assert sim.condition("Ready")[:2] == ("False", "WaitingForSpareGPUs")


def test_a_held_rollout_is_not_ready_for_its_generation() -> None:
    sim = Simulation(nodes=[gpu_node("gpu-1", 1)])
    sim.serve()
    sim.edit(engine={"maxNumSeqs": 16}, rollout={"strategy": "Surge"})
    sim.settle()
    assert sim.condition("Available")[0] == "True"
    assert sim.condition("Ready")[:2] == ("False", "WaitingForSpareGPUs")


def test_a_surge_that_lost_its_spare_place_falls_back_to_replacing_in_place() -> None:
    sim = Simulation(nodes=[gpu_node("gpu-1", 2)])
    sim.serve()
    sim.edit(engine={"maxNumSeqs": 16})
    sim.settle()
    assert sim.child("Deployment")["spec"]["strategy"]["rollingUpdate"]["maxSurge"] == 1
    thief = gpu_pod("thief", "gpu-1", 1)
    sim.foreign_pods.append(thief)
    sim.add_unbound_pod()
    sim.settle()
    assert sim.child("Deployment")["spec"]["strategy"]["rollingUpdate"] == {
        "maxSurge": 0,
        "maxUnavailable": 1,
    }


def test_a_strategy_that_somebody_edits_is_put_back() -> None:
    sim = Simulation()
    sim.serve()
    sim.child("Deployment")["spec"]["strategy"] = {"type": "Recreate"}
    sim.child("Deployment")["spec"]["paused"] = True
    sim.settle()
    assert sim.child("Deployment")["spec"]["strategy"]["type"] == "RollingUpdate"
    assert sim.child("Deployment")["spec"]["paused"] is False


def test_old_replicas_are_not_judged_by_the_new_plan() -> None:
    sim = Simulation(nodes=[gpu_node("gpu-1", 4)])
    sim.serve()
    sim.report(kv_cache_tokens=sim.resource["status"]["plan"]["kvTokens"])
    sim.settle()
    sim.edit(parallelism={"tensor": 2})
    sim.settle()
    assert sim.condition("Degraded")[0] == "False"
    assert "engine" not in sim.resource["status"]


def test_a_deployment_that_is_being_deleted_still_hands_its_record_on() -> None:
    sim = Simulation()
    sim.serve()
    template = sim.child("Deployment")["spec"]["template"]
    sim.child("Deployment")["metadata"]["deletionTimestamp"] = "2026-01-01T00:00:00Z"
    sim.upgrade("9.9.9")
    outcome = sim.step()
    assert outcome.resolve is None
    (wanted,) = [obj for obj in outcome.apply if obj["kind"] == "Deployment"]
    assert wanted["spec"]["template"] == template


def test_a_record_of_a_newer_version_survives_a_rollback_of_the_operator() -> None:
    sim = Simulation()
    sim.serve()
    deployment = sim.child("Deployment")
    record = json.loads(deployment["metadata"]["annotations"][names.IN_FORCE_ANNOTATION])
    record["spec"]["engine"]["fromTheFuture"] = 1
    record["anotherOne"] = {}
    deployment["metadata"]["annotations"][names.IN_FORCE_ANNOTATION] = json.dumps(record)
    read = read_in_force(deployment)
    assert read is not None
    template = deployment["spec"]["template"]
    sim.upgrade("0.0.1")
    sim.settle()
    assert sim.child("Deployment")["spec"]["template"] == template


def test_a_recorded_template_that_somebody_edited_is_no_record() -> None:
    sim = Simulation()
    sim.serve()
    deployment = sim.child("Deployment")
    record = json.loads(deployment["metadata"]["annotations"][names.IN_FORCE_ANNOTATION])
    record["template"]["spec"]["containers"][0]["image"] = "evil"
    deployment["metadata"]["annotations"][names.IN_FORCE_ANNOTATION] = json.dumps(record)
    assert read_in_force(deployment) is None
    record["template"] = {}
    deployment["metadata"]["annotations"][names.IN_FORCE_ANNOTATION] = json.dumps(record)
    assert read_in_force(deployment) is None


def test_a_plan_that_is_made_anew_keeps_its_commit() -> None:
    sim = Simulation()
    sim.settle()
    sim.nodes = []
    sim.resolution = None
    outcome = sim.step()
    assert outcome.resolve is not None
    assert outcome.resolve.revision == COMMIT


def test_a_plan_that_lost_its_place_is_told_from_a_wish_that_cannot_be() -> None:
    sim = Simulation()
    sim.settle()
    sim.nodes = []
    sim.settle()
    assert sim.condition("Planned")[:2] == ("False", "PlanNoLongerFits")


def test_a_config_map_without_a_commit_is_refused_with_what_to_do() -> None:
    sim = Simulation(model=ModelResolved(replace(summary(), revision=None)))
    sim.edit(model={"source": "hf://meta-llama/Llama-3.1-8B", "configRef": {"configMap": "llama"}})
    sim.settle()
    status, reason, message = sim.condition("Accepted")
    assert (status, reason) == ("False", "InvalidConfigMap")
    assert "stowage inspect" in message


def test_an_agent_that_falls_silent_is_told_and_its_figures_go() -> None:
    sim = Simulation()
    sim.serve()
    sim.report()
    sim.settle()
    sim.reports.clear()
    sim.settle()
    assert "engine" in sim.resource["status"], "a first report may be on its way"
    sim.now += timedelta(minutes=5)
    sim.settle()
    assert sim.condition("Degraded")[:2] == ("True", "ReportUnavailable")
    assert "utilization" not in sim.resource["status"]


def test_a_replica_on_a_lost_node_is_told_as_such() -> None:
    sim = Simulation()
    sim.serve()
    sim.run_pods(ready=False)
    sim.nodes[0]["status"]["conditions"] = [{"type": "Ready", "status": "Unknown"}]
    sim.settle()
    assert sim.condition("Degraded")[:2] == ("True", "NodeLost")


def _ended(sim: Simulation, reason: str, *, ran: bool) -> dict[str, Any]:
    states = [{"name": "engine", "state": {"terminated": {"exitCode": 137}}}] if ran else []
    return {
        "metadata": {"name": "llama-gone", "uid": "gone", "labels": {}},
        "spec": {"nodeName": "gpu-0"},
        "status": {
            "phase": "Failed",
            "reason": reason,
            "message": "as the kubelet says",
            "startTime": sim.now.isoformat(),
            "containerStatuses": states,
        },
    }


@pytest.mark.parametrize(
    ("word", "ran", "reason", "minutes"),
    [
        pytest.param("UnexpectedAdmissionError", False, "Unschedulable", 10, id="its node rejects it"),
        pytest.param("Evicted", True, "Evicted", 2, id="its node evicts it"),
    ],
)
def test_why_a_pod_ended_is_told_while_it_is_news(word: str, ran: bool, reason: str, minutes: int) -> None:
    sim = Simulation()
    sim.serve()
    sim.run_pods(ready=False)
    sim.ended_pod = _ended(sim, word, ran=ran)
    sim.settle()
    status, found, message = sim.condition("Ready")
    assert (status, found) == ("False", reason)
    assert "as the kubelet says" in message
    sim.now += timedelta(minutes=minutes)
    sim.settle()
    assert sim.condition("Ready")[1] != reason


def test_the_end_of_a_pod_is_no_news_once_every_replica_serves() -> None:
    sim = Simulation()
    sim.serve()
    sim.ended_pod = _ended(sim, "Evicted", ran=True)
    sim.settle()
    assert sim.condition("Ready")[:2] == ("True", "Serving")
