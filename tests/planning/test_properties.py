"""What holds for every plan, whatever the cluster and the wish."""

from __future__ import annotations

from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from stowage.hardware.resources import Resources
from stowage.planning.placement import needs_of, place_replicas
from stowage.planning.plan import Plan
from tests.hardware.objects import GFD_MEMORY_MIB, gpu_node, node, pod, quota
from tests.planning.builders import inventory_of, llama_1b, llama_8b, llama_70b, make_plan

GPU = "nvidia.com/gpu"
PRODUCTS = sorted(GFD_MEMORY_MIB)
profiles = st.sampled_from([llama_1b(), llama_8b(), llama_70b()])


@st.composite
def clusters(draw: st.DrawFn) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    nodes: list[dict[str, Any]] = []
    pods: list[dict[str, Any]] = []
    for index in range(draw(st.integers(1, 5))):
        count = draw(st.sampled_from([1, 2, 4, 8]))
        name = f"n{index}"
        memory = draw(st.sampled_from(["16Gi", "64Gi", "1Ti"]))
        nodes.append(gpu_node(name, draw(st.sampled_from(PRODUCTS)), count, memory=memory))
        taken = draw(st.integers(0, count))
        if taken:
            pods.append(pod(f"p{index}", {GPU: str(taken)}, on=name, namespace="other"))
    nodes.append(node("cpu"))
    return nodes, pods


@st.composite
def wishes(draw: st.DrawFn) -> dict[str, Any]:
    wish: dict[str, Any] = {"workload": {}, "engine": {}}
    if draw(st.booleans()):
        wish["workload"]["maxModelLen"] = draw(st.sampled_from([512, 4096, 20_000, 131_072]))
    if draw(st.booleans()):
        wish["workload"]["concurrencyPerReplica"] = draw(st.integers(1, 40))
    if draw(st.booleans()):
        wish["engine"]["maxNumSeqs"] = draw(st.sampled_from([40, 64, 256]))
    if draw(st.booleans()):
        wish["parallelism"] = {"tensor": draw(st.sampled_from([1, 2, 4, 8]))}
    return wish


@settings(max_examples=40, deadline=None)
@given(clusters(), wishes(), profiles, st.integers(1, 4), st.randoms())
def test_the_order_of_nodes_and_pods_does_not_matter(
    cluster: tuple[list[Any], list[Any]], wish: dict[str, Any], profile: Any, replicas: int, random: Any
) -> None:
    nodes, pods = cluster
    before = make_plan(profile, inventory_of(nodes, pods), replicas, **wish)
    mixed_nodes, mixed_pods = nodes[:], pods[:]
    random.shuffle(mixed_nodes)
    random.shuffle(mixed_pods)
    assert make_plan(profile, inventory_of(mixed_nodes, mixed_pods), replicas, **wish) == before


@settings(max_examples=60, deadline=None)
@given(clusters(), wishes(), profiles, st.integers(1, 4))
def test_every_chosen_plan_has_a_place_and_keeps_its_promises(
    cluster: tuple[list[Any], list[Any]], wish: dict[str, Any], profile: Any, replicas: int
) -> None:
    inventory = inventory_of(*cluster)
    result = make_plan(profile, inventory, replicas, **wish)
    if result.plan is None:
        assert result.refusal is not None
        assert result.refusal.message
        return
    plan = result.plan
    assert_placed(plan, inventory, replicas)
    assert plan.ledger.verdict in ("Fits", "Tight")
    assert plan.ledger.max_concurrency >= 1
    assert plan.settings.max_num_seqs <= plan.settings.max_num_batched_tokens
    assert plan.settings.max_model_len == wish["workload"].get("maxModelLen", plan.settings.max_model_len)
    assert plan.settings.max_num_seqs == wish["engine"].get("maxNumSeqs", plan.settings.max_num_seqs)
    assert plan.concurrency_served >= wish["workload"].get("concurrencyPerReplica", 1)
    assert Plan.from_json(plan.to_json()) == plan


def assert_placed(plan: Plan, inventory: Any, replicas: int) -> None:
    names = plan.placement.node_names
    assert 1 <= len(names) <= replicas
    free = {room.facts.name: room.free for room in inventory.nodes}
    facts = {room.facts.name: room.facts for room in inventory.nodes}
    for name in names:
        free[name] = free[name].minus(plan.requests)
        assert all(facts[name].labels[key] == value for key, value in plan.node_selector.items())
    for name in names:
        left = free[name]
        assert min(left.cpu_millicores, left.memory_bytes, left.pods, left.count(GPU)) >= 0
    assert names == place_replicas(plan, inventory, replicas)


@settings(max_examples=40, deadline=None)
@given(st.integers(18_000, 90_000), st.integers(1, 40_000), profiles, st.sampled_from([1, 2, 4]))
def test_more_gpu_memory_never_makes_a_fitting_model_not_fit(
    mebibytes: int, more: int, profile: Any, tensor: int
) -> None:
    wish: dict[str, Any] = {
        "workload": {"maxModelLen": 8192},
        "engine": {"maxNumSeqs": 64, "maxNumBatchedTokens": 2048, "gpuMemoryUtilization": 0.9},
        "parallelism": {"tensor": tensor},
    }

    def fits(memory: int) -> bool:
        labels = {"nvidia.com/gpu.memory": str(memory)}
        nodes = [gpu_node("n", "NVIDIA-A100-SXM4-80GB", 4, labels=labels)]
        return make_plan(profile, inventory_of(nodes), **wish).plan is not None

    assert not fits(mebibytes) or fits(mebibytes + more)


@settings(max_examples=40, deadline=None)
@given(clusters(), st.integers(0, 6), st.integers(1, 8))
def test_a_quota_is_never_exceeded(cluster: tuple[list[Any], list[Any]], gpus: int, replicas: int) -> None:
    limited = quota("q", {f"requests.{GPU}": str(gpus)})
    result = make_plan(llama_8b(), inventory_of(*cluster, [limited]), replicas)
    if result.plan is not None:
        assert len(result.plan.placement.node_names) * result.plan.gpus_per_replica <= gpus


@given(st.integers(0, 8))
def test_placing_nothing_names_nothing(count: int) -> None:
    inventory = inventory_of([gpu_node("n", "NVIDIA-L4", 4)])
    plan = make_plan(llama_8b(), inventory).plan
    assert plan is not None
    assert len(place_replicas(plan, inventory, count)) == min(count, 4)
    assert needs_of(plan).requests == Resources(2000, 8 * 2**30, 1, {GPU: 1})
