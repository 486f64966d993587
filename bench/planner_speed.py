"""How long one plan takes on a large cluster: every kind of question, and phase by phase.

The cluster is made up: nodes of ten GPU models in four sizes, most of them partly in use, and pods of other
LLMDeployments that wait for a place. Reading objects is timed apart: the operator does it once per change of an
object, not once per plan. Times are of the processor, so that what else runs on the machine counts little.

    python bench/planner_speed.py [--nodes 1000] [--types 10] [--pending 100] [--repeat 7] [--json FILE]
"""

from __future__ import annotations

import argparse
import gc
import json
import platform
import random
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, Final

from rich.console import Console
from rich.table import Table

from stowage.api.refusal import Refusal
from stowage.api.v1alpha1 import LLMDeploymentSpec
from stowage.hardware.catalog import find_gpu
from stowage.hardware.inventory import Inventory, PodUsage, build_inventory, pod_usage, reserve
from stowage.hardware.node import NodeFacts, node_facts
from stowage.hardware.resources import Resources
from stowage.hardware.room import PodNeeds
from stowage.hardware.taints import GPU_TOLERATION
from stowage.memory.budget import ledger
from stowage.memory.device import DeviceMemory
from stowage.model.config_json import read_profile
from stowage.model.profile import ModelProfile
from stowage.planning.groups import GpuGroup, gpu_groups
from stowage.planning.placement import places, why_nowhere
from stowage.planning.plan import PlanRequest, PlanResult, plan
from stowage_runtime.contract import CheckpointSummary

_PRODUCTS: Final = (
    "NVIDIA-H100-80GB-HBM3",
    "NVIDIA-L4",
    "NVIDIA-A100-SXM4-80GB",
    "NVIDIA-L40S",
    "NVIDIA-H200",
    "NVIDIA-A10G",
    "NVIDIA-B200",
    "NVIDIA-A100-SXM4-40GB",
    "NVIDIA-L40",
    "NVIDIA-H100-PCIe",
)
_SIZES: Final = (8, 4, 8, 2)
_SHAPES: Final = (1, 2, 4, 8)
_GPU: Final = "nvidia.com/gpu"
_MILLI: Final = 1e3
_GOAL_MS: Final = 200.0
"""A plan with its inventory on 1,000 nodes of ten GPU models is to take less."""

_LENGTHS: Final = {"promptTokens": {"mean": 2000}, "outputTokens": {"mean": 200}, "maxModelLen": 16384}
_BUSY: Final = {**_LENGTHS, "concurrencyPerReplica": 16}
_RATE: Final = {**_LENGTHS, "requestsPerSecond": 6.0}
_OBJECTIVES: Final = {"ttft": "2s", "tpot": "50ms"}
_QUESTIONS: Final[Mapping[str, Mapping[str, Any]]] = {
    "plain": {},
    "objectives": {"workload": _BUSY, "objectives": _OBJECTIVES},
    "a rate": {"workload": _RATE},
    "a rate and objectives": {"workload": _RATE, "objectives": _OBJECTIVES},
    "the least latency": {"workload": _BUSY, "objectives": {**_OBJECTIVES, "priority": "Latency"}},
    "the most throughput": {"workload": _LENGTHS, "objectives": {"priority": "Throughput"}},
    "refusal: fits nowhere": {
        "workload": {**_LENGTHS, "concurrencyPerReplica": 64},
        "hardware": {"gpus": ["NVIDIA-L4"]},
        "parallelism": {"tensor": 1},
    },
    "refusal: objectives out of reach": {
        "workload": {**_LENGTHS, "concurrencyPerReplica": 200},
        "objectives": {"ttft": "100ms", "tpot": "9ms"},
    },
}
# The published shapes of Llama 3.1, which is all that the memory model needs of them.
_LLAMA: Final[Mapping[str, Any]] = {
    "architectures": ["LlamaForCausalLM"],
    "model_type": "llama",
    "hidden_act": "silu",
    "max_position_embeddings": 131072,
    "num_key_value_heads": 8,
    "torch_dtype": "bfloat16",
    "vocab_size": 128256,
    "tie_word_embeddings": False,
}
_MODELS: Final[Mapping[str, Mapping[str, int]]] = {
    "8B": {
        "hidden_size": 4096,
        "intermediate_size": 14336,
        "num_hidden_layers": 32,
        "num_attention_heads": 32,
    },
    "70B": {
        "hidden_size": 8192,
        "intermediate_size": 28672,
        "num_hidden_layers": 80,
        "num_attention_heads": 64,
    },
}


@dataclass(frozen=True, slots=True)
class Cluster:
    """Raw Nodes and Pods; `pending` are those without a node, of other LLMDeployments."""

    nodes: list[dict[str, Any]]
    pods: list[dict[str, Any]]
    pending: list[dict[str, Any]]


@dataclass(frozen=True, slots=True)
class Row:
    """One phase: the median, and the least of all runs."""

    phase: str
    median_ms: float
    least_ms: float


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n\n")[0])
    parser.add_argument("--nodes", type=int, default=1000)
    parser.add_argument(
        "--types", type=int, default=10, choices=range(1, len(_PRODUCTS) + 1), metavar="1..10"
    )
    parser.add_argument(
        "--pending", type=int, default=100, help="pods of other LLMDeployments without a node"
    )
    parser.add_argument("--repeat", type=int, default=7)
    parser.add_argument("--json", type=Path, help="write the figures to this file")
    options = parser.parse_args()
    cluster = make_cluster(options.nodes, options.types, options.pending)
    rows, questions = measure(cluster, options.repeat), ask(cluster, options.repeat)
    title = (
        f"{len(cluster.nodes)} nodes, {options.types} GPU types, {len(cluster.pods)} running pods, "
        f"{len(cluster.pending)} pending; median of {options.repeat} on Python {platform.python_version()}"
    )
    table = Table("phase", "median ms", "least ms", title=title)
    for row in rows:
        table.add_row(row.phase, f"{row.median_ms:.2f}", f"{row.least_ms:.2f}")
    Console(width=110).print(table)
    Console(width=110).print(_questions_table(questions))
    if options.json:
        figures = {
            row.phase: {"median_ms": row.median_ms, "least_ms": row.least_ms} for row in (*rows, *questions)
        }
        options.json.write_text(json.dumps({"cluster": title, "phases": figures}, indent=2) + "\n")
    return 0


def make_cluster(nodes: int, types: int, pending: int) -> Cluster:
    """Make the same cluster for the same numbers."""
    chance = random.Random(7)
    cluster = Cluster([], [], [])
    for index in range(nodes):
        product, count = _PRODUCTS[index % types], _SIZES[index // types % len(_SIZES)]
        name = f"gpu-{index:04}"
        cluster.nodes.append(_node(name, product, count, index))
        used = chance.choice((0, 0, 1, count // 2, count - 1, count))
        amounts = {"cpu": f"{chance.randint(500, 9000)}m", "memory": f"{chance.randint(2, 60)}Gi"}
        if used:
            cluster.pods.append(_pod(f"job-{index}", {**amounts, _GPU: str(used)}, {"nodeName": name}))
        for agent in ("log", "metrics"):
            small = {"cpu": "100m", "memory": f"{chance.randint(64, 512)}Mi"}
            cluster.pods.append(_pod(f"{agent}-{index}", small, {"nodeName": name}))
    for index in range(pending):
        owner = f"other-{index // 5}"
        gpus = (1, 2, 4, 8, 1)[index // 5 % 5]
        selector = {"nvidia.com/gpu.product": _PRODUCTS[index // 5 % types]}
        requests = {"cpu": str(1 + gpus), "memory": f"{4 + 4 * gpus}Gi", _GPU: str(gpus)}
        more = {
            "nodeSelector": selector,
            "tolerations": [{"key": _GPU, "operator": "Exists", "effect": "NoSchedule"}],
        }
        cluster.pending.append(_pod(f"{owner}-{index}", requests, more, owner))
    return cluster


def measure(cluster: Cluster, repeat: int) -> list[Row]:
    """Time every phase."""
    facts = [node_facts(each) for each in cluster.nodes]
    usages = [pod_usage(each) for each in cluster.pods]
    waiting = [pod_usage(each) for each in cluster.pending]
    empty = build_inventory(facts, usages)
    inventory = reserve(empty, waiting)
    requests = {name: _request(name) for name in _MODELS}
    groups = gpu_groups(inventory, requests["8B"].spec)
    rows = [
        timed("a million additions (how busy this machine is)", lambda: _additions(10**6), 3),
        timed(
            "read all Nodes (once per change of a Node)", lambda: [node_facts(x) for x in cluster.nodes], 3
        ),
        timed("read all Pods (once per change of a Pod)", lambda: [pod_usage(x) for x in cluster.pods], 3),
        timed("inventory from nodes and running pods", lambda: build_inventory(facts, usages), repeat),
        timed("places kept for pending pods", lambda: reserve(empty, waiting), repeat),
        timed("groups of nodes", lambda: gpu_groups(inventory, requests["8B"].spec), repeat),
        timed(f"places for {len(_SHAPES) * len(groups)} shapes", lambda: _places(groups, _SHAPES), repeat),
        timed(f"why {len(groups)} shapes have no place", lambda: _places(groups, (2 * max(_SIZES),)), repeat),
    ]
    for name, request in requests.items():
        rows.append(timed(f"plan of {name} alone", partial(plan, request, inventory), repeat))
        rows.append(_ledger_row(name, plan(request, inventory), request, repeat))
    return rows


def ask(cluster: Cluster, repeat: int) -> list[Row]:
    """Time every kind of question of every model, the inventory and the places kept for others included."""
    facts = [node_facts(each) for each in cluster.nodes]
    usages = [pod_usage(each) for each in cluster.pods]
    waiting = [pod_usage(each) for each in cluster.pending]
    return [
        timed(f"{name}: {question}", partial(_whole, _request(name, **wish), facts, usages, waiting), repeat)
        for question, wish in _QUESTIONS.items()
        for name in _MODELS
    ]


def _questions_table(rows: Sequence[Row]) -> Table:
    table = Table("question", "median ms", "least ms", "of the goal", title=f"goal: {_GOAL_MS:.0f} ms")
    for row in rows:
        share = f"{row.median_ms / _GOAL_MS:.0%}"
        table.add_row(row.phase, f"{row.median_ms:.0f}", f"{row.least_ms:.0f}", share)
    return table


def timed(phase: str, work: Callable[[], object], repeat: int) -> Row:
    """Run `work` once to warm up, then `repeat` times without the garbage collector in between."""
    work()
    seconds = []
    for _ in range(repeat):
        gc.collect()
        start = time.process_time()
        work()
        seconds.append(time.process_time() - start)
    return Row(phase, statistics.median(seconds) * _MILLI, min(seconds) * _MILLI)


def _additions(count: int) -> int:
    result = 0
    for number in range(count):
        result += number
    return result


def _places(groups: Sequence[GpuGroup], sizes: Sequence[int]) -> None:
    """Look for two places for every number of GPUs in every group, and for the reason where there is none."""
    for group in groups:
        for size in sizes:
            requests = Resources(1000 + 1000 * size, (4 + 4 * size) * 2**30, 1, {group.resource_name: size})
            needs = PodNeeds(requests, group.node_selector, (GPU_TOLERATION,), group.resource_name)
            if not places(needs, group.arranged or group.nodes, (), 2):
                why_nowhere(needs, group.nodes, (), f"{size} GPUs")


def _whole(
    request: PlanRequest, facts: list[NodeFacts], usages: list[PodUsage], waiting: list[PodUsage]
) -> PlanResult:
    inventory: Inventory = reserve(build_inventory(facts, usages), waiting)
    return plan(request, inventory)


def _ledger_row(name: str, result: PlanResult, request: PlanRequest, repeat: int) -> Row:
    """One ledger of the plan's own shape, over context lengths that were not asked for before."""
    if result.plan is None:
        raise SystemExit(f"{name} has no plan on this cluster: {result.refusal}")
    version, chosen = request.engine(), result.plan
    if isinstance(version, Refusal):
        raise SystemExit(version.sentence)
    gpu, count = find_gpu(chosen.gpu_product or ""), 50
    if gpu is None:
        raise SystemExit(f"{name} was planned on {chosen.gpu_product}, which the catalog does not have.")
    device = DeviceMemory.of_gpu(gpu)
    shape = chosen.settings.shape(version.default_gpu_memory_utilization)
    lengths = iter(range(2048, 2**30, 16))

    def several() -> None:
        for _ in range(count):
            found = ledger(request.profile, replace(shape, max_model_len=next(lengths)), device, version)
            if isinstance(found, Refusal):
                raise SystemExit(found.sentence)

    row = timed(f"one ledger of {name}, tp{chosen.settings.tensor_parallel_size}", several, repeat)
    return Row(row.phase, row.median_ms / count, row.least_ms / count)


def _request(name: str, **spec: Any) -> PlanRequest:
    summary = CheckpointSummary(
        source=f"hf://bench/{name}",
        revision="c" * 40,
        config={**_LLAMA, **_MODELS[name]},
        tensors=(),
        total_bytes=0,
        files=0,
    )
    profile: ModelProfile | Refusal = read_profile(summary)
    if isinstance(profile, Refusal):
        raise SystemExit(profile.sentence)
    wish = {"model": {"source": summary.source}, "workload": {"maxModelLen": 16384}, **spec}
    return PlanRequest(LLMDeploymentSpec.model_validate(wish), profile, replicas=2)


def _node(name: str, product: str, count: int, index: int) -> dict[str, Any]:
    amounts = {"cpu": str(16 * count), "memory": f"{128 * count}Gi", "pods": "110", _GPU: str(count)}
    labels = {
        "kubernetes.io/hostname": name,
        "kubernetes.io/os": "linux",
        "topology.kubernetes.io/zone": f"zone-{index % 3}",
        "nvidia.com/gpu.product": product,
        "nvidia.com/gpu.count": str(count),
        "nvidia.com/gpu.replicas": "1",
        "nvidia.com/mig.config.state": "success",
        **{f"example.com/label-{number}": str(index % (number + 2)) for number in range(20)},
    }
    return {
        "kind": "Node",
        "metadata": {"name": name, "labels": labels},
        "spec": {"taints": [{"key": _GPU, "value": "present", "effect": "NoSchedule"}]},
        "status": {
            "allocatable": amounts,
            "capacity": amounts,
            "conditions": [{"type": "Ready", "status": "True"}],
        },
    }


def _pod(
    name: str, requests: Mapping[str, str], spec: Mapping[str, Any], owner: str | None = None
) -> dict[str, Any]:
    return {
        "kind": "Pod",
        "metadata": {
            "name": name,
            "namespace": "default",
            "labels": {"stowage.dev/name": owner} if owner else {},
        },
        "spec": {"containers": [{"name": "main", "resources": {"requests": dict(requests)}}], **spec},
        "status": {"phase": "Running" if "nodeName" in spec else "Pending"},
    }


if __name__ == "__main__":
    raise SystemExit(main())
