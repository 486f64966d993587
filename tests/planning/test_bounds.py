"""Bounds of the search: no score that is made without them is below any of them."""

from __future__ import annotations

from typing import Any

from hypothesis import assume, example, given, settings
from hypothesis import strategies as st

from stowage.api.refusal import Refusal
from stowage.planning.groups import gpu_groups
from stowage.planning.plan import PlanRequest
from stowage.planning.search.bounds import bound, is_beaten, quick_bound
from stowage.planning.search.gpu import planning_of
from stowage.planning.search.judge import Score
from stowage.planning.search.lossy import Variant, eight_bit_on_load
from tests.hardware.objects import gpu_node
from tests.planning.builders import inventory_of, llama_1b, llama_8b, llama_70b, spec_of
from tests.planning.test_oracle import nodes, wishes
from tests.planning.test_shapes import mixtral

PROFILES = {"1B": llama_1b, "8B": llama_8b, "70B": llama_70b, "mixture": mixtral}
LIMITS = st.sampled_from(
    [
        {},
        {},
        {"maxNumSeqs": 4},
        {"maxNumBatchedTokens": 1024},
        {"maxNumSeqs": 64, "maxNumBatchedTokens": 4096},
    ]
)
LENGTHS = st.sampled_from(
    [{}, {"promptTokens": {"mean": 200}, "outputTokens": {"mean": 20}},
     {"promptTokens": {"mean": 6000}, "outputTokens": {"mean": 40}},
     {"promptTokens": {"mean": 300}, "outputTokens": {"mean": 1500}}]
)  # fmt: skip


SHORT = {"promptTokens": {"mean": 200}, "outputTokens": {"mean": 20}}
A100 = "NVIDIA-A100-SXM4-80GB"


def wish_of(priority: str, load: dict[str, Any], **latencies: str) -> dict[str, Any]:
    return {"workload": load, "objectives": {"priority": priority, **latencies}}


@settings(max_examples=30, deadline=None)
@example(  # seldom a request: a mixture reads fewer experts for part of one
    [gpu_node("n0", "NVIDIA-L40S", 4)],
    wish_of("Latency", {"requestsPerSecond": 0.5}),
    "mixture",
    {},
    SHORT,
    True,
)
@example(  # requests longer than what is asked to be held: fewer run at once
    [gpu_node("n0", A100, 1)],
    wish_of("Cost", {"concurrencyPerReplica": 8}, tpot="15ms"),
    "70B",
    {},
    {},
    True,
)
@example(  # others in flight fill the stages
    [gpu_node("n0", A100, 4)],
    wish_of("Cost", {"requestsPerSecond": 0.5}, ttft="300ms"),
    "70B",
    {},
    {},
    False,
)
@example(
    [gpu_node("n0", A100, 2)],
    wish_of("Latency", {"requestsPerSecond": 0.5}, ttft="300ms"),
    "70B",
    {},
    {},
    False,
)
@example(  # smaller chunks fill the stages better
    [gpu_node("n0", "NVIDIA-L40S", 2)],
    wish_of("Throughput", {}, tpot="40ms"),
    "8B",
    {"maxNumSeqs": 4},
    {"promptTokens": {"mean": 6000}, "outputTokens": {"mean": 40}},
    False,
)
@given(nodes(), wishes(), st.sampled_from(sorted(PROFILES)), LIMITS, LENGTHS, st.booleans())
def test_no_score_is_below_a_bound(
    cluster: list[dict[str, Any]],
    wish: dict[str, Any],
    name: str,
    limits: dict[str, int],
    lengths: dict[str, Any],
    eight_bit: bool,
) -> None:
    assume(wish["workload"].get("concurrencyPerReplica", 0) <= limits.get("maxNumSeqs", 40))
    profile = PROFILES[name]()
    wish = {**wish, "workload": {**wish["workload"], **lengths}, "engine": limits}
    inventory, request = inventory_of(cluster), PlanRequest(spec_of(**wish), profile, 2)
    planning = planning_of(request, inventory)
    assert not isinstance(planning, Refusal)
    variant = eight_bit_on_load(profile, planning.version) if eight_bit else Variant(profile)
    assert variant is not None
    search = planning.search(variant, gpu_groups(inventory, request.spec))
    for target in (planning.aims[0], planning.aims[-1]):
        for option in search.options:
            score = search.judge.score(option, target) if option.nowhere is None else None
            if not isinstance(score, Score):
                continue
            assert quick_bound(search.judge, option) <= score.key
            assert bound(search.judge, option) <= score.key
            assert not is_beaten(search.judge, option, target, score.key)
