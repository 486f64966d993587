"""What the operator knows (`World`) and what it wants done (`Outcome`), as plain values.

The async shell builds a World for one key and carries out the Outcome; `stowage.engine` maps one to the other.
Nothing here may read a clock, do IO or keep state: a World can be written down in a test and replayed.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any, NamedTuple

from stowage.api.refusal import Refusal
from stowage.hardware.inventory import Inventory
from stowage.memory.calibration import UNCALIBRATED, Calibration
from stowage.planning.prices import Prices, default_prices
from stowage_runtime.contract import CheckpointSummary, RuntimeReport


class Key(NamedTuple):
    """The LLMDeployment that a piece of work is about."""

    namespace: str
    name: str

    def __str__(self) -> str:
        return f"{self.namespace}/{self.name}"


class ObjectRef(NamedTuple):
    """A Kubernetes object by name."""

    api_version: str
    kind: str
    namespace: str
    name: str

    @classmethod
    def of(cls, obj: Mapping[str, Any]) -> ObjectRef:
        """The reference of a raw object."""
        metadata = obj.get("metadata", {})
        return cls(obj["apiVersion"], obj["kind"], metadata.get("namespace", ""), metadata["name"])


@dataclass(frozen=True, slots=True)
class ModelQuery:
    """A model that the engine needs to know before it can plan.

    `inputs` is the digest of the spec fields that planning depends on: a moving tag is resolved once per digest, so
    that scaling never changes the commit. `inspection_pod` names the pod that has to read the model (a credential or
    a volume is needed), `config_map` the ConfigMap that holds it. `alternatives` are sources of lossy checkpoints that
    the spec allows: they are read as well, and one that cannot be read is left out.
    """

    key: Key
    inputs: str
    source: str
    revision: str | None = None
    inspection_pod: str | None = None
    config_map: str | None = None
    alternatives: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class ModelPending:
    """The model is being read."""


@dataclass(frozen=True, slots=True)
class ModelResolved:
    """The model's configuration and checkpoint summary, at a commit, and those of the alternatives by source."""

    summary: CheckpointSummary
    alternatives: Mapping[str, CheckpointSummary | Refusal] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class ModelFailed:
    """The model could not be read; `retry_at` is None where only a new generation can help."""

    refusal: Refusal
    retry_at: datetime | None


ModelState = ModelPending | ModelResolved | ModelFailed


@dataclass(frozen=True, slots=True)
class Resolution:
    """The latest answer of the shell to a `ModelQuery`."""

    query: ModelQuery
    state: ModelState


@dataclass(frozen=True, slots=True)
class PodReport:
    """The newest report that was scraped from the agent of one pod."""

    pod: str
    pod_uid: str
    scraped_at: datetime
    report: RuntimeReport


@dataclass(frozen=True, slots=True)
class EngineOptions:
    """Operator-wide settings that decisions depend on.

    `agent_image` holds the agent's zipapp; `images` maps a hardware class (GPU, CPU) to the default vLLM image
    with `{version}` in it; `hub_endpoint` is handed to pods as HF_ENDPOINT when set. Plans are compared by `prices`.
    """

    agent_image: str
    default_engine_version: str
    images: Mapping[str, str]
    hub_endpoint: str | None = None
    status_interval: timedelta = timedelta(seconds=60)
    utilization_step: int = 5
    prices: Prices = field(default_factory=default_prices)


@dataclass(frozen=True, slots=True)
class World:
    """Everything that one reconciliation may look at.

    `resource` is the LLMDeployment as stored (None once it is gone). `children` holds the live objects that carry
    our labels for this key, ReplicaSets and inspection pods included; `pods` its server pods, whole. `inventory` has
    the unbound demand of every other LLMDeployment already taken off. `ahead` names older LLMDeployments that still
    wait for their first verdict. `ended_pod` is the newest server pod that its node rejected or evicted. `taken` says,
    for names that a foreign object holds, whose they are; `refused` why the API server refused what was last applied.
    `calibration` is what the start-ups in the cluster taught about memory. With `review` it is time to see whether a
    plan in force has become worse than a new one would be.
    """

    key: Key
    resource: Mapping[str, Any] | None
    children: Mapping[ObjectRef, Mapping[str, Any]]
    pods: tuple[Mapping[str, Any], ...]
    inventory: Inventory
    options: EngineOptions
    ahead: tuple[Key, ...] = ()
    resolution: Resolution | None = None
    reports: tuple[PodReport, ...] = ()
    installed_kinds: frozenset[str] = frozenset()
    taken: Mapping[ObjectRef, str] = field(default_factory=dict)
    refused: str | None = None
    ended_pod: Mapping[str, Any] | None = None
    calibration: Calibration = UNCALIBRATED
    review: bool = False


@dataclass(frozen=True, slots=True)
class EventIntent:
    """An event to post about the LLMDeployment; the recorder drops repetitions."""

    type: str
    reason: str
    action: str
    note: str


@dataclass(frozen=True, slots=True)
class Outcome:
    """What should be done, in this order: `apply`, `delete`, `status`, `events`; then look again after `requeue_after`.

    Before the first apply of a name the shell makes sure that nobody else holds it; when one does, none of `apply`
    is carried out and the next World says so in `taken`. `status` is the whole status. `planned` tells the shell that
    this key has had its verdict, so that younger ones may go on, `reviewed` that a review that was due has been made.
    """

    apply: tuple[Mapping[str, Any], ...] = ()
    delete: tuple[ObjectRef, ...] = ()
    status: Mapping[str, Any] | None = None
    events: tuple[EventIntent, ...] = ()
    resolve: ModelQuery | None = None
    planned: bool = False
    reviewed: bool = False
    requeue_after: timedelta | None = None
