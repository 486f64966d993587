"""Manifests that must be refused, each with the words that a user reads.

The same table runs against the real API server and against the parser that works without a cluster.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import pytest


@dataclass(frozen=True)
class BadObject:
    """What differs from a good manifest, and what the answers must contain.

    `server` and `offline` are lists of texts; where `offline` is empty the same texts are expected.
    """

    spec: Mapping[str, Any] = field(default_factory=dict)
    server: tuple[str, ...] = ()
    offline: tuple[str, ...] = ()
    name: str = "llama"
    without_model: bool = False

    def document(self) -> dict[str, Any]:
        base: dict[str, Any] = {} if self.without_model else {"model": {"source": "hf://Qwen/Qwen3-8B"}}
        return {
            "apiVersion": "stowage.dev/v1alpha1",
            "kind": "LLMDeployment",
            "metadata": {"name": self.name},
            "spec": merged(base, self.spec),
        }


def merged(base: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    """Lay changes over a document, object by object."""
    result = copy.deepcopy(dict(base))
    for key, value in changes.items():
        before = result.get(key)
        both = isinstance(before, Mapping) and isinstance(value, Mapping)
        result[key] = merged(before, value) if both else copy.deepcopy(value)  # type: ignore[arg-type]
    return result


def bad(sentence_id: str, spec: Mapping[str, Any], *server: str, **more: Any) -> Any:
    return pytest.param(BadObject(spec, server, **more), id=sentence_id)


SOURCE_SENTENCE = (
    "must be hf://ORG/NAME or hf://NAME (Hugging Face Hub), pvc://CLAIM/PATH, oci://IMAGE or s3://BUCKET/PATH"
)
NAME_SENTENCE = "metadata.name must be at most 50 lower case letters, digits and '-', begin with a letter"


def with_args(*arguments: str) -> dict[str, Any]:
    return {"runtime": {"args": list(arguments)}}


def with_env(**entry: Any) -> dict[str, Any]:
    return {"runtime": {"env": [entry]}}


BAD_OBJECTS = [
    # --- name and model
    bad("a name that is too long for a Service", {}, NAME_SENTENCE, name="a" * 51),
    bad("a name that begins with a digit", {}, NAME_SENTENCE, name="8b-llama"),
    bad("a name with a dot, which labels allow and Services do not", {}, NAME_SENTENCE, name="llama.8b"),
    bad("no model at all", {}, "spec.model", "equired", without_model=True),
    bad(
        "a model without a source",
        {"model": {"servedName": "x"}},
        "spec.model.source",
        "equired",
        without_model=True,
    ),
    bad(
        "a source without a scheme",
        {"model": {"source": "Qwen/Qwen3-8B"}},
        "spec.model.source",
        SOURCE_SENTENCE,
    ),
    bad("a source with an unknown scheme", {"model": {"source": "ftp://models/x"}}, SOURCE_SENTENCE),
    bad("a Hub source with three parts", {"model": {"source": "hf://a/b/c"}}, SOURCE_SENTENCE),
    bad("a volume source that climbs out", {"model": {"source": "pvc://claim/../etc"}}, SOURCE_SENTENCE),
    bad(
        "a source longer than 512 characters",
        {"model": {"source": "oci://" + "a" * 507}},
        "spec.model.source",
        "512",
    ),
    bad("a replan of two words", {"replan": "once more"}, "spec.replan", "must be one word of letters"),
    bad("a replan of more than 63 characters", {"replan": "a" * 64}, "spec.replan", "63"),
    bad(
        "a revision for a volume",
        {"model": {"source": "pvc://claim/model", "revision": "main"}},
        "revision belongs to hf:// sources only",
    ),
    bad(
        "a token for a volume",
        {"model": {"source": "pvc://claim/model", "tokenSecretRef": {"name": "hub"}}},
        "tokenSecretRef belongs to hf:// sources only",
    ),
    bad(
        "a Secret reference without a name",
        {"model": {"tokenSecretRef": {"key": "token"}}},
        "spec.model.tokenSecretRef.name",
        "equired",
    ),
    bad(
        "a served name with a blank",
        {"model": {"servedName": "my model"}},
        "spec.model.servedName",
        "must be letters, digits and . _ : / -",
    ),
    # --- mode, replicas, unknown fields
    bad(
        "an unknown mode",
        {"mode": "DryRun"},
        "spec.mode",
        'Unsupported value: "DryRun": supported values: "Serve", "Plan"',
        offline=("spec.mode is \"DryRun\": input should be 'Serve' or 'Plan'",),
    ),
    bad(
        "a misspelt field",
        {"modell": {"source": "hf://a/b"}},
        'unknown field "spec.modell"',
        offline=("spec.modell is not a field",),
    ),
    bad("fewer than no replicas", {"replicas": -1}, "spec.replicas", "greater than or equal to 0"),
    bad(
        "more replicas than the API allows", {"replicas": 1001}, "spec.replicas", "less than or equal to 1000"
    ),
    bad("replicas as text", {"replicas": "two"}, "spec.replicas", "integer"),
    # --- workload and objectives
    bad(
        "concurrency and rate at once",
        {"workload": {"concurrencyPerReplica": 8, "requestsPerSecond": 4}},
        "spec.workload",
        "give concurrencyPerReplica or requestsPerSecond, not both",
    ),
    bad(
        "a 95th percentile below the mean",
        {"workload": {"promptTokens": {"mean": 4000, "p95": 300}}},
        "spec.workload.promptTokens",
        "p95 must not be below mean",
    ),
    bad(
        "token lengths without a mean",
        {"workload": {"outputTokens": {"p95": 300}}},
        "spec.workload.outputTokens.mean",
        "equired",
    ),
    bad(
        "prompts that are longer than the context",
        {"workload": {"maxModelLen": 2048, "promptTokens": {"mean": 4000}}},
        "promptTokens.mean must be below maxModelLen",
    ),
    bad(
        "answers that are longer than the context",
        {"workload": {"maxModelLen": 2048, "outputTokens": {"mean": 2048}}},
        "outputTokens.mean must be below maxModelLen",
    ),
    bad(
        "a context of no tokens", {"workload": {"maxModelLen": 0}}, "spec.workload.maxModelLen", "equal to 1"
    ),
    bad(
        "a rate of nothing",
        {"workload": {"requestsPerSecond": 0}},
        "spec.workload.requestsPerSecond",
        "greater than 0",
    ),
    bad(
        "a duration without a unit",
        {"objectives": {"ttft": "2"}},
        "spec.objectives.ttft",
        "must be a duration such as 50ms, 2s, 1m30s or 2h",
    ),
    bad("a percentile above all", {"objectives": {"percentile": 100}}, "spec.objectives.percentile", "99"),
    # --- precision
    bad(
        "a lossy policy without an accuracy check",
        {"precision": {"policy": "EightBit"}},
        "spec.precision",
        "policy EightBit and FourBit need precision.accuracy",
    ),
    bad(
        "lossy alternatives under the lossless policy",
        {"precision": {"alternatives": [{"source": "hf://a/b-FP8"}]}},
        "alternatives are lossy checkpoints and need policy EightBit or FourBit",
    ),
    bad(
        "an accuracy drop that is no percentage",
        {
            "precision": {
                "policy": "FourBit",
                "accuracy": {"promptsRef": {"configMap": "p"}, "maxDrop": "0.01"},
            }
        },
        "spec.precision.accuracy.maxDrop",
        "must be a percentage such as 1% or 0.5%",
    ),
    bad(
        "an accuracy drop of nothing",
        {
            "precision": {
                "policy": "FourBit",
                "accuracy": {"promptsRef": {"configMap": "p"}, "maxDrop": "0.0%"},
            }
        },
        "spec.precision.accuracy.maxDrop",
        "must be above 0%",
    ),
    bad(
        "a KV cache precision with punctuation",
        {"precision": {"kvCache": "fp8-e4m3"}},
        "spec.precision.kvCache",
        "must be Auto or one of vLLM's names",
    ),
    # --- parallelism and engine
    bad(
        "tensor parallelism over no GPU",
        {"parallelism": {"tensor": 0}},
        "spec.parallelism.tensor",
        "equal to 1",
    ),
    bad("a fraction of a GPU", {"parallelism": {"tensor": 1.5}}, "spec.parallelism.tensor", "integer"),
    bad(
        "a shape that needs more GPUs than one replica may take",
        {"parallelism": {"tensor": 8, "data": 2}, "hardware": {"maxGPUsPerReplica": 8}},
        "parallelism needs tensor × pipeline × data GPUs, more than hardware.maxGPUsPerReplica",
    ),
    bad(
        "memory utilisation in percent",
        {"engine": {"gpuMemoryUtilization": 92}},
        "spec.engine.gpuMemoryUtilization",
        "less than or equal to 1",
    ),
    bad(
        "no memory utilisation",
        {"engine": {"gpuMemoryUtilization": 0}},
        "spec.engine.gpuMemoryUtilization",
        "greater than 0",
    ),
    bad(
        "KV memory in a unit that does not exist",
        {"engine": {"kvCacheMemory": "20GB"}},
        "spec.engine.kvCacheMemory",
        "must be a quantity above zero such as 20Gi",
    ),
    bad("no KV memory", {"engine": {"kvCacheMemory": 0}}, "must be a quantity above zero such as 20Gi"),
    bad(
        "an engine version with a v",
        {"engine": {"version": "v0.32.0"}},
        "spec.engine.version",
        "must be a vLLM release such as 0.32.0, without v",
    ),
    bad(
        "a token budget below the number of sequences",
        {"engine": {"maxNumSeqs": 256, "maxNumBatchedTokens": 128}},
        "maxNumBatchedTokens must be at least maxNumSeqs",
    ),
    bad(
        "more requests in flight than the engine may run",
        {"workload": {"concurrencyPerReplica": 64}, "engine": {"maxNumSeqs": 32}},
        "workload.concurrencyPerReplica must not be above engine.maxNumSeqs",
    ),
    bad(
        "an engine switch as text",
        {"engine": {"enforceEager": "yes"}},
        "spec.engine.enforceEager",
        "boolean",
    ),
    bad(
        "two adapters of one name",
        {
            "engine": {
                "loraAdapters": [{"name": "a", "source": "hf://x/y"}, {"name": "a", "source": "hf://x/z"}]
            }
        },
        "spec.engine.loraAdapters[1]",
        "Duplicate value",
        offline=("spec.engine", "'a' stands twice in loraAdapters"),
    ),
    # --- hardware
    bad(
        "GPUs for the CPU class",
        {"hardware": {"class": "CPU", "gpus": ["NVIDIA-L4"]}},
        "spec.hardware",
        "class CPU takes no gpus, maxGPUs or maxGPUsPerReplica",
    ),
    bad(
        "a GPU limit for the CPU class",
        {"hardware": {"class": "CPU", "maxGPUs": 4}},
        "class CPU takes no gpus, maxGPUs or maxGPUsPerReplica",
    ),
    bad(
        "a GPU that is named with a blank",
        {"hardware": {"gpus": ["NVIDIA L4"]}},
        "spec.hardware.gpus[0]",
        "must be a GPU product as in the node label nvidia.com/gpu.product",
    ),
    bad(
        "the same GPU twice",
        {"hardware": {"gpus": ["NVIDIA-L4", "NVIDIA-L4"]}},
        "spec.hardware.gpus[1]",
        "Duplicate value",
        offline=("spec.hardware", "'NVIDIA-L4' stands twice in gpus"),
    ),
    bad(
        "a replica that may take more than all replicas",
        {"hardware": {"maxGPUs": 4, "maxGPUsPerReplica": 8}},
        "maxGPUsPerReplica must not be above maxGPUs",
    ),
    bad(
        "a toleration with a value that is not compared",
        {"hardware": {"tolerations": [{"key": "gpu", "operator": "Exists", "value": "x"}]}},
        "spec.hardware.tolerations[0]",
        "a toleration with operator Exists takes no value",
    ),
    bad(
        "a toleration of nothing",
        {"hardware": {"tolerations": [{"value": "x"}]}},
        "a toleration without a key needs operator: Exists",
    ),
    bad(
        "a toleration time for an effect that has none",
        {"hardware": {"tolerations": [{"key": "a", "effect": "NoSchedule", "tolerationSeconds": 5}]}},
        "tolerationSeconds needs effect: NoExecute",
    ),
    bad(
        "a node label that cannot exist",
        {"hardware": {"nodeSelector": {"zone": "zone a"}}},
        "spec.hardware.nodeSelector",
        "must be a label value",
    ),
    # --- scaling, rollout, recovery
    bad(
        "a minimum above the maximum",
        {"scaling": {"mode": "Native", "minReplicas": 4, "maxReplicas": 2}},
        "minReplicas must not be above maxReplicas",
    ),
    bad(
        "limits of replicas that nobody would obey",
        {"scaling": {"maxReplicas": 2}},
        "minReplicas and maxReplicas need mode: Native",
    ),
    bad(
        "an unknown rollout strategy",
        {"rollout": {"strategy": "BlueGreen"}},
        "spec.rollout.strategy",
        "BlueGreen",
    ),
    bad("a recovery without steps", {"recovery": {"maxSteps": 0}}, "spec.recovery.maxSteps", "equal to 1"),
    # --- runtime
    bad(
        "an own image without its engine version",
        {"runtime": {"image": "registry.example/vllm:1"}},
        "runtime.image needs engine.version",
    ),
    bad(
        "an option that the plan sets",
        with_args("--tensor-parallel-size", "4"),
        "spec.runtime.args[0]",
        "--tensor-parallel-size is set by Stowage: use spec.parallelism.tensor",
    ),
    bad(
        "an option that the plan sets, written with its value",
        with_args("--enable-prefix-caching", "--max-model-len=4096"),
        "spec.runtime.args[1]",
        "--max-model-len is set by Stowage: use spec.workload.maxModelLen",
    ),
    bad(
        "an option that the plan sets, written with underscores",
        with_args("--gpu_memory_utilization=0.5"),
        "--gpu_memory_utilization is set by Stowage: use spec.engine.gpuMemoryUtilization",
    ),
    bad(
        "an option that the plan sets, abbreviated",
        with_args("--max-num-b", "512"),
        "--max-num-b is set by Stowage: use spec.engine.maxNumBatchedTokens",
    ),
    bad("an option that the plan sets, by its short name", with_args("-tp=2"), "-tp is set by Stowage"),
    bad("an option that the agent sets", with_args("--port", "80"), "--port is set by Stowage"),
    bad("a key in plain sight", with_args("--api-key", "abc"), "put authentication in front of the Service"),
    bad(
        "more options than the API allows",
        with_args(*(f"--option-{index}" for index in range(65))),
        "spec.runtime.args",
        "64",
    ),
    bad(
        "a variable that Stowage sets",
        with_env(name="HF_TOKEN", value="hf_abc"),
        "spec.runtime.env[0].name",
        "a Hub token belongs into spec.model.tokenSecretRef",
    ),
    bad(
        "a variable with two values",
        with_env(name="A", value="x", valueFrom={"configMapKeyRef": {"name": "c", "key": "k"}}),
        "an env entry takes value or valueFrom, not both",
    ),
    bad(
        "a variable from nowhere",
        with_env(name="A", valueFrom={}),
        "valueFrom needs exactly one of secretKeyRef and configMapKeyRef",
    ),
    bad("a variable that begins with a digit", with_env(name="1A", value="x"), "not beginning with a digit"),
    bad(
        "GPUs as a resource",
        {"runtime": {"resources": {"limits": {"nvidia.com/gpu": 4}}}},
        "spec.runtime.resources.limits",
        "may hold cpu, memory and ephemeral-storage only; the number of GPUs follows from the plan",
    ),
    bad(
        "memory that is not a quantity",
        {"runtime": {"resources": {"requests": {"memory": "lots"}}}},
        "spec.runtime.resources.requests",
        "must be a quantity above zero",
    ),
    bad(
        "a label that Stowage owns",
        {"runtime": {"podLabels": {"stowage.dev/role": "x"}}},
        "keys under stowage.dev/ and app.kubernetes.io/ are set by Stowage",
    ),
    bad(
        "a start-up time in words",
        {"runtime": {"startupTimeout": "half an hour"}},
        "spec.runtime.startupTimeout",
        "must be a duration",
    ),
]
