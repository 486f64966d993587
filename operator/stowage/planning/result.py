"""What planning is about, as values: the request, the chosen plan, and everything that was not chosen.

A plan can be written down and read back, and its digest tells whether two plans need different pods.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from hashlib import sha256
from typing import Final

from stowage.api.conditions import Reason
from stowage.api.refusal import Refusal
from stowage.api.v1alpha1 import LLMDeploymentSpec
from stowage.hardware.resources import Resources
from stowage.hardware.taints import Toleration
from stowage.memory.calibration import UNCALIBRATED, Calibration
from stowage.memory.ledger import Ledger
from stowage.memory.release.engine_version import EngineVersion, engine_version
from stowage.model.profile import ModelProfile
from stowage.performance.estimator import Estimator
from stowage.performance.forecast import Forecast
from stowage.performance.traffic import Traffic
from stowage.planning.plain import from_plain, to_plain
from stowage.planning.prices import GPU_HOURS, Prices, default_prices
from stowage.planning.search.lossy import LossyOption
from stowage.planning.settings import EngineSettings

DEFAULT_ENGINE_VERSION: Final = "0.32.0"
"""The vLLM release that is launched where neither the spec nor the operator's settings name one."""

_DIGESTED: Final = (
    "engine_version",
    "image_class",
    "gpu_product",
    "gpu_resource",
    "gpus_per_replica",
    "node_selector",
    "settings",
    "requests",
    "shm_bytes",
    "model_revision",
    "model_source",
    "nodes_per_replica",
)
_ANSWERS: Final = ("model_revision", "model_source", "engine_version")
_ANSWER_SETTINGS: Final = ("dtype", "kv_cache_dtype", "quantization")


@dataclass(frozen=True, slots=True)
class Placement:
    """Where replicas go.

    `kind` is Now, AfterScaleUp or Impossible; `node_names` has one entry per replica that has a place in the
    snapshot, possibly fewer than asked for; `evidence` says in words what the placement rests on. `pools` names
    the node pools of this kind that may grow; with AfterScaleUp, `new_nodes` of their nodes do not exist yet.
    """

    kind: str
    node_names: tuple[str, ...]
    evidence: str = ""
    pools: tuple[str, ...] = ()
    new_nodes: int = 0


@dataclass(frozen=True, slots=True)
class Plan:
    """One shape, decided: what runs, with which settings, on what, and what the memory model says about it.

    `requests` are those of the engine's container, one pod slot included. `concurrency_served` counts
    requests of `request_tokens` that run at once in one replica. `tolerations` are those the placement was
    made with.

    `replicas` are those that the stated rate takes, else those asked for; a replica that spans `nodes_per_replica`
    nodes cannot be served yet. `model_source` is set where an allowed checkpoint is served in place of the spec's,
    and `lossy` names what is lossy. `forecast` is what `traffic` sees from one replica. Costs are those of all
    `replicas`, in `cost_unit` (a currency, or GPU-hours where the GPU has no price); `shortfall` holds a sentence
    for each objective that is not met. `calibrated` names the measured start-ups that the ledger was corrected by.
    """

    engine_version: str
    image_class: str
    gpu_product: str | None
    gpu_resource: str | None
    gpus_per_replica: int
    node_selector: Mapping[str, str]
    settings: EngineSettings
    ledger: Ledger
    requests: Resources
    shm_bytes: int
    concurrency_served: int
    placement: Placement
    model_revision: str
    precision: str
    notes: tuple[str, ...] = ()
    request_tokens: int = 0
    tolerations: tuple[Toleration, ...] = ()
    replicas: int = 1
    nodes_per_replica: int = 1
    model_source: str | None = None
    lossy: str | None = None
    attention_backend: str | None = None
    traffic: Traffic | None = None
    forecast: Forecast | None = None
    cost_per_hour: float | None = None
    cost_per_million_tokens: float | None = None
    cost_unit: str = GPU_HOURS
    default_price: bool = False
    shortfall: tuple[str, ...] = ()
    calibrated: str | None = None

    @property
    def data_parallel_size(self) -> int:
        """Data-parallel ranks inside one replica."""
        return self.settings.data_parallel_size

    @property
    def expert_parallel(self) -> bool:
        """Whether experts are spread over the ranks instead of split."""
        return self.settings.enable_expert_parallel

    def to_json(self) -> str:
        """Write the plan as canonical JSON: sorted keys, no spaces, the same bytes for the same plan."""
        return _canonical(to_plain(self))

    @classmethod
    def from_json(cls, text: str) -> Plan:
        """Read a plan back. Raises ValueError, KeyError or TypeError on a text that is not one."""
        return from_plain(cls, json.loads(text))

    def digest(self) -> str:
        """Give the SHA-256 (hex) of what changes pods; ledger, placement and notes do not count."""
        plain = to_plain(self)
        return sha256(_canonical({key: plain[key] for key in _DIGESTED}).encode()).hexdigest()

    def accuracy_key(self) -> str:
        """Give the SHA-256 (hex) of what can change answers: checkpoint, number formats and engine release."""
        plain = {key: getattr(self, key) for key in _ANSWERS}
        plain |= {key: getattr(self.settings, key) for key in _ANSWER_SETTINGS}
        return sha256(_canonical(plain).encode()).hexdigest()


@dataclass(frozen=True, slots=True)
class Rejection:
    """A candidate (`tp2 on NVIDIA-L4`) or node that was not taken, with the first reason why."""

    candidate: str
    reason: Reason
    message: str


@dataclass(frozen=True, slots=True)
class Alternative:
    """A candidate that fits and has a place too, but is not as good as the chosen one.

    The cost is that of all replicas it would take, in the unit that it names. `forecast` is set where one was made.
    """

    candidate: str
    message: str
    cost_per_hour: float | None = None
    cost_unit: str = GPU_HOURS
    replicas: int = 1
    forecast: Forecast | None = None


@dataclass(frozen=True, slots=True)
class PlanResult:
    """The plan or the refusal, what else was tried, and what would have to change for (more) to fit.

    `contender` is a lossy plan that would be taken once its accuracy check has passed. `better` would replace a plan
    in force that is kept because it still fits. `multi_node` is best of all but spans nodes, which cannot be served
    yet; the plan is then the best on one node.
    """

    plan: Plan | None
    refusal: Refusal | None = None
    rejections: tuple[Rejection, ...] = ()
    would_fit: tuple[str, ...] = ()
    alternatives: tuple[Alternative, ...] = ()
    contender: Plan | None = None
    better: Plan | None = None
    multi_node: Plan | None = None


@dataclass(frozen=True, slots=True)
class PlanRequest:
    """What to plan for.

    `default_engine_version` is the vLLM release for specs that name none. `alternatives` are the profiles of the
    checkpoints that spec.precision.alternatives allows; `passed` and `failed` hold digests or accuracy keys of
    lossy plans whose check has ended. A plan `in_force` is kept as long as it fits. With `thorough` every candidate
    is judged in full, which changes what is explained and never what is chosen. `estimator` makes the forecast that
    is shown (None: the roofline); the search itself always takes the roofline's closed form. `calibration` is what
    measured start-ups taught about memory.
    """

    spec: LLMDeploymentSpec
    profile: ModelProfile
    replicas: int
    default_engine_version: str = DEFAULT_ENGINE_VERSION
    prices: Prices = field(default_factory=default_prices)
    alternatives: tuple[LossyOption, ...] = ()
    passed: frozenset[str] = frozenset()
    failed: frozenset[str] = frozenset()
    in_force: Plan | None = None
    estimator: Estimator | None = None
    thorough: bool = False
    calibration: Calibration = UNCALIBRATED

    def engine(self) -> EngineVersion | Refusal:
        """Look up the memory model of the engine version that is asked for.

        Releases that start the V0 engine are sized, not served: their metrics and options are others.
        """
        version = engine_version(self.spec.engine.version or self.default_engine_version)
        if isinstance(version, Refusal):
            return version
        if version.engine == "V0":
            message = f"vLLM {version.version} runs the V0 engine, which is sized but cannot be served."
            return Refusal(Reason.UNSUPPORTED_ENGINE_VERSION, message, "Use a release from 0.8.0 on.")
        if self.spec.engine.kv_cache_memory is not None and not version.pins_kv_bytes:
            message = f"spec.engine.kvCacheMemory is set, and vLLM {version.version} has no option for it."
            return Refusal(Reason.PIN_CONFLICT, message, "Remove it, or use a release from 0.10.2 on.")
        return version


def _canonical(value: object) -> str:
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
