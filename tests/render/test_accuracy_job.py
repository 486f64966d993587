"""The Job of an accuracy check: what it mounts, what it runs on."""

from __future__ import annotations

from dataclasses import replace
from functools import cache
from typing import Any

import pytest

import stowage.engine.plan_step as plan_step
from stowage.api.v1alpha1 import LLMDeploymentSpec, parse_spec
from stowage.api.v1alpha1.precision import AccuracySpec
from stowage.hardware.inventory import Inventory
from stowage.hardware.resources import Resources
from stowage.planning.plan import Plan, PlanRequest, PlanResult, plan
from stowage.render import names
from stowage.render.accuracy_job import (
    Comparison,
    accuracy_config_map,
    accuracy_job,
    accuracy_job_name,
    job_plan,
)
from stowage_runtime.contract import AccuracyCheck
from tests.engine.simulation import OPTIONS, Simulation, gpu_node

CHECK_ID = "0123456789abcdef" * 2
FP8 = "hf://org/llama-fp8"
RESOURCE = {
    "apiVersion": "stowage.dev/v1alpha1",
    "kind": "LLMDeployment",
    "metadata": {"name": "llama", "namespace": "default", "uid": "uid-1"},
}


def spec_of(source: str = "hf://meta-llama/Llama-3.1-8B", **fields: Any) -> LLMDeploymentSpec:
    precision = {"policy": "EightBit", "accuracy": {"promptsRef": {"configMap": "questions"}}}
    found = parse_spec({"model": {"source": source}, "precision": precision, **fields})
    assert isinstance(found, LLMDeploymentSpec)
    return found


@cache
def exact_plan() -> Plan:
    sim, found = Simulation(nodes=[gpu_node("gpu-1", 2)]), list[PlanResult]()

    def planner(request: PlanRequest, inventory: Inventory) -> PlanResult:
        found.append(plan(request, inventory))
        return found[-1]

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(plan_step, "plan", planner)
        sim.settle()
    assert found[0].plan is not None
    return found[0].plan


def lossy_plan(**changes: Any) -> Plan:
    exact = exact_plan()
    settings = replace(exact.settings, quantization="fp8", **changes.pop("settings", {}))
    return replace(exact, settings=settings, lossy="fp8 on load", **changes)


def comparison(candidate: Plan, baseline: Plan | None = None, **accuracy: Any) -> Comparison:
    wish = AccuracySpec.model_validate({"promptsRef": {"configMap": "questions"}, **accuracy})
    return Comparison(CHECK_ID, candidate, baseline, wish)


def job_of(what: Comparison, spec: LLMDeploymentSpec | None = None) -> dict[str, Any]:
    return accuracy_job(RESOURCE, spec or spec_of(), what, OPTIONS)


def check_of(what: Comparison, spec: LLMDeploymentSpec | None = None) -> AccuracyCheck:
    made = accuracy_config_map(RESOURCE, spec or spec_of(), what, OPTIONS)
    assert made["metadata"]["name"] == accuracy_job_name("llama", CHECK_ID)
    return AccuracyCheck.from_json(made["data"][names.CHECK_KEY])


def engine_of(job: dict[str, Any]) -> dict[str, Any]:
    container: dict[str, Any] = job["spec"]["template"]["spec"]["containers"][0]
    return container


def test_its_pod_is_no_servers_pod() -> None:
    job = job_of(comparison(lossy_plan(), exact_plan()))
    template = job["spec"]["template"]
    labels = template["metadata"]["labels"]
    assert labels[names.ROLE_LABEL] == names.ACCURACY_ROLE
    assert names.LEADER_LABEL not in labels
    assert not names.selector_labels("llama").items() <= labels.items()
    assert template["spec"]["restartPolicy"] == "Never"
    engine = engine_of(job)
    assert engine["command"][:3] == ["python3", "/stowage/bin/agent.pyz", "accuracy"]
    assert not {"startupProbe", "readinessProbe", "livenessProbe", "lifecycle", "ports"} & engine.keys()


def test_it_mounts_the_prompts_and_its_own_check() -> None:
    what = comparison(lossy_plan(), exact_plan())
    job = job_of(what)
    volumes = {volume["name"]: volume for volume in job["spec"]["template"]["spec"]["volumes"]}
    assert volumes["prompts"]["configMap"]["name"] == "questions"
    assert volumes["launch"]["configMap"]["name"] == job["metadata"]["name"]
    paths = {mount["name"]: mount["mountPath"] for mount in engine_of(job)["volumeMounts"]}
    assert paths["prompts"] == check_of(what).prompts_path


def test_batches_are_small_and_the_cache_is_pinned_so_that_log_probabilities_find_memory() -> None:
    check = check_of(comparison(lossy_plan(), exact_plan(), answerTokens=77))
    options = dict(zip(check.candidate.args[::2], check.candidate.args[1::2], strict=False))
    ledger = exact_plan().ledger
    assert int(options["--max-num-batched-tokens"]) == 1024
    assert int(options["--max-num-seqs"]) == check.parallel_requests == 2
    assert ledger.kv_needed_bytes <= int(options["--kv-cache-memory-bytes"]) <= ledger.kv_cache_bytes
    assert options["--quantization"] == "fp8"
    assert check.answer_tokens == 77


def test_a_step_holds_at_least_one_block_of_the_cache() -> None:
    hybrid = replace(exact_plan(), ledger=replace(exact_plan().ledger, block_size=1600))
    args = check_of(comparison(lossy_plan(ledger=hybrid.ledger), hybrid)).candidate.args
    assert args[args.index("--max-num-batched-tokens") + 1] == "1600"


def test_an_allowed_checkpoint_is_fetched_at_its_own_commit() -> None:
    what = comparison(lossy_plan(model_source=FP8, model_revision="f" * 40), exact_plan())
    check = check_of(what)
    assert (check.candidate.model.repo_id, check.candidate.model.revision) == ("org/llama-fp8", "f" * 40)
    assert check.baseline is not None
    assert check.baseline.model.repo_id == "meta-llama/Llama-3.1-8B"


def test_both_engines_get_the_gpus_of_the_larger_plan() -> None:
    large = replace(
        exact_plan(),
        gpus_per_replica=2,
        settings=replace(exact_plan().settings, tensor_parallel_size=2),
        requests=Resources(8000, 2**35, 1, {"nvidia.com/gpu": 2}),
    )
    small = lossy_plan(requests=Resources(16000, 2**30, 1, {"nvidia.com/gpu": 1}))
    what = comparison(small, large)
    check = check_of(what)
    assert check.baseline is not None
    assert check.baseline.gpus is not None
    assert check.baseline.gpus.count == 2
    assert check.candidate.gpus == check.baseline.gpus
    assert "--tensor-parallel-size" not in check.candidate.args
    assert engine_of(job_of(what))["resources"]["limits"]["nvidia.com/gpu"] == "2"
    sized = job_plan(what).requests
    assert (sized.cpu_millicores, sized.memory_bytes, sized.count("nvidia.com/gpu")) == (16000, 2**35, 2)


@pytest.mark.parametrize(
    ("source", "alternative", "claims"),
    [
        pytest.param("pvc://one/a", None, {"model": "one"}, id="one claim"),
        pytest.param("pvc://one/a", "pvc://two/b", {"model": "one", "candidate": "two"}, id="two claims"),
        pytest.param("hf://org/a", "pvc://two/b", {"candidate": "two"}, id="a claim beside the Hub"),
    ],
)
def test_models_on_claims_are_mounted_apart(
    source: str, alternative: str | None, claims: dict[str, str]
) -> None:
    # The baseline is the larger one, so that its pod is what the Job's is made from.
    baseline = replace(exact_plan(), gpus_per_replica=2)
    what = comparison(lossy_plan(model_source=alternative), baseline)
    spec = spec_of(source)
    pod = job_of(what, spec)["spec"]["template"]["spec"]
    mounted = {
        volume["name"]: volume["persistentVolumeClaim"]["claimName"]
        for volume in pod["volumes"]
        if "persistentVolumeClaim" in volume
    }
    assert mounted == claims
    candidate = check_of(what, spec).candidate.model.path
    assert candidate == (names.CANDIDATE_DIR if alternative else names.MODEL_DIR)
    assert candidate in {mount["mountPath"] for mount in pod["containers"][0]["volumeMounts"]}


def test_the_longest_name_still_fits_the_label_of_its_pod() -> None:
    assert len(accuracy_job_name("n" * 50, CHECK_ID)) == 63
