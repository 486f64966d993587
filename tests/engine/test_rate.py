"""A stated rate decides how many replicas run, and what spec.replicas may still decide."""

from __future__ import annotations

from typing import Any

import pytest

from tests.engine.simulation import Simulation, gpu_node

LENGTHS = {"promptTokens": {"mean": 2000}, "outputTokens": {"mean": 200}}


def deployed(rate: float, replicas: int) -> Simulation:
    spec: dict[str, Any] = {
        "model": {"source": "hf://meta-llama/Llama-3.1-8B"},
        "workload": {**LENGTHS, "requestsPerSecond": rate},
        "replicas": replicas,
    }
    sim = Simulation(spec=spec, nodes=[gpu_node("gpu-1", 8, "NVIDIA-H100-80GB-HBM3", 81559, "9.0")])
    sim.serve()
    return sim


def replicas(sim: Simulation) -> int:
    workload = sim.deployment()
    assert workload is not None
    return int(workload["spec"]["replicas"])


@pytest.mark.parametrize(
    ("rate", "asked", "at_least", "at_most"),
    [
        pytest.param(0.1, 1, 1, 1, id="one replica takes it"),
        pytest.param(60.0, 1, 2, 8, id="more are run than are asked for"),
        pytest.param(0.1, 3, 3, 3, id="more than it takes are obeyed"),
        pytest.param(60.0, 0, 0, 0, id="none is none"),
    ],
)
def test_as_many_replicas_run_as_the_rate_takes(rate: float, asked: int, at_least: int, at_most: int) -> None:
    assert at_least <= replicas(deployed(rate, asked)) <= at_most


def test_scaling_below_what_the_rate_takes_is_said_and_above_is_obeyed() -> None:
    sim = deployed(60.0, 1)
    needed = replicas(sim)
    assert f"requestsPerSecond takes {needed} replicas, more than the 1" in sim.condition("ScalingActive")[2]
    sim.edit(replicas=needed + 1)
    sim.settle()
    assert replicas(sim) == needed + 1
    assert "whoever writes it" in sim.condition("ScalingActive")[2]
    sim.edit(workload=LENGTHS, replicas=1)
    sim.settle()
    assert replicas(sim) == 1
