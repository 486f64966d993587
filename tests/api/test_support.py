"""What this version does not act on is refused by name, and what it acts on is not."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from stowage.api.support import limited_fields, unsupported_fields
from stowage.api.v1alpha1 import LLMDeployment, LLMDeploymentSpec, parse_deployment, parse_spec
from tests.api.bad_objects import merged
from tests.api.test_crd import nodes

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"
ACCURACY = {"promptsRef": {"configMap": "prompts"}}


def spec_with(**changes: Any) -> LLMDeploymentSpec:
    spec = parse_spec(merged({"model": {"source": "hf://a/b"}}, changes))
    assert isinstance(spec, LLMDeploymentSpec), spec
    return spec


REFUSED: list[tuple[str, dict[str, Any]]] = [
    ("model.source", {"model": {"source": "s3://bucket/model"}}),
    (
        "precision.alternatives",
        {
            "precision": {
                "policy": "EightBit",
                "accuracy": ACCURACY,
                "alternatives": [{"source": "pvc://claim/c"}],
            }
        },
    ),
    ("engine.loraAdapters", {"engine": {"loraAdapters": [{"name": "a", "source": "hf://a/lora"}]}}),
    ("engine.speculative", {"engine": {"speculative": {"method": "ngram", "numSpeculativeTokens": 2}}}),
    ("scaling.mode", {"scaling": {"mode": "Native", "maxReplicas": 3}}),
    ("recovery.enabled", {"recovery": {"enabled": True}}),
    ("recovery.maxSteps", {"recovery": {"maxSteps": 2}}),
    ("recovery.allow", {"recovery": {"allow": ["Context"]}}),
]


@pytest.mark.parametrize(("path", "changes"), REFUSED, ids=[path for path, _ in REFUSED])
def test_a_field_that_nothing_acts_on_is_named_with_what_to_do(path: str, changes: dict[str, Any]) -> None:
    found = {each.path: each for each in unsupported_fields(spec_with(**changes))}
    refused = found[f"spec.{path}"]
    assert refused.message.startswith(
        f"spec.{path} is {refused.value}, which this version does not support yet; "
    )
    assert refused.message.endswith(dict(limited_fields())[path] + ".")


def test_the_table_of_cases_covers_every_row() -> None:
    assert [path for path, _ in REFUSED] == [path for path, _ in limited_fields()]


@pytest.mark.parametrize(
    "changes",
    [
        pytest.param({}, id="only a source"),
        pytest.param({"model": {"source": "pvc://claim/model"}}, id="a volume"),
        pytest.param({"mode": "Plan", "replicas": 0}, id="a plan"),
        pytest.param(
            {"workload": {"maxModelLen": 4096, "promptTokens": {"mean": 10}, "concurrencyPerReplica": 2}},
            id="a workload by concurrency",
        ),
        pytest.param(
            {"precision": {"policy": "Checkpoint", "kvCache": "bfloat16"}}, id="a lossless KV cache"
        ),
        pytest.param(
            {"parallelism": {"tensor": 4, "pipeline": 1, "data": 1, "expertParallel": "Disabled"}},
            id="tensor parallelism",
        ),
        pytest.param(
            {
                "engine": {
                    "version": "0.32.0",
                    "gpuMemoryUtilization": 0.9,
                    "kvCacheMemory": "1Gi",
                    "enforceEager": True,
                }
            },
            id="pins of the engine",
        ),
        pytest.param(
            {
                "workload": {"requestsPerSecond": 4.5},
                "objectives": {"ttft": "2s", "tpot": "50ms", "percentile": 90},
            },
            id="a rate and objectives",
        ),
        pytest.param({"objectives": {"priority": "Throughput"}}, id="another priority"),
        pytest.param(
            {
                "precision": {
                    "policy": "FourBit",
                    "kvCache": "fp8",
                    "accuracy": ACCURACY,
                    "alternatives": [{"source": "hf://a/c"}],
                }
            },
            id="lossy precision with its check",
        ),
        pytest.param(
            {"parallelism": {"pipeline": 2, "data": 2, "expertParallel": "Enabled"}},
            id="every kind of parallelism",
        ),
        pytest.param({"hardware": {"class": "CPU"}, "rollout": {"strategy": "InPlace"}}, id="the CPU class"),
        pytest.param(
            {"scaling": {"mode": "External"}, "recovery": {"enabled": False}}, id="defaults spelt out"
        ),
        pytest.param(
            {"runtime": {"args": ["--enable-prefix-caching"], "startupTimeout": "5m"}}, id="the runtime"
        ),
    ],
)
def test_what_this_version_acts_on_passes(changes: dict[str, Any]) -> None:
    assert unsupported_fields(spec_with(**changes)) == []


@pytest.mark.parametrize("path", sorted(EXAMPLES.glob("*.yaml")), ids=lambda path: path.name)
def test_only_the_full_example_shows_fields_that_nothing_acts_on(path: Path) -> None:
    deployment = parse_deployment(yaml.safe_load(path.read_text()))
    assert isinstance(deployment, LLMDeployment)
    assert bool(unsupported_fields(deployment.spec)) == (path.name == "full.yaml")


def test_the_full_example_has_every_field_of_the_spec() -> None:
    """Leaves aside requestsPerSecond, which excludes concurrencyPerReplica, and says so in a comment."""
    from stowage.api.crd import structural_schema

    text = (EXAMPLES / "full.yaml").read_text()
    document = yaml.safe_load(text)

    def paths(value: Any, path: str) -> set[str]:
        if isinstance(value, dict):
            return {path}.union(*(paths(child, f"{path}.{key}") for key, child in value.items()))
        if isinstance(value, list):
            return {path}.union(*(paths(child, f"{path}[]") for child in value))
        return {path}

    schema = structural_schema()["properties"]["spec"]
    wanted = {path for path, _ in nodes(schema, ".spec") if not path.endswith("[]")}
    # The rate excludes the concurrency that the example shows, so it stands there as a comment.
    assert wanted - paths(document["spec"], ".spec") == {".spec.workload.requestsPerSecond"}
    assert "# requestsPerSecond:" in text
