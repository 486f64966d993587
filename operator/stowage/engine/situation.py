"""A World, read once: the live Deployment, its record, the parsed spec."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from stowage.api.conditions import Reason
from stowage.api.refusal import Refusal
from stowage.api.support import unsupported_fields
from stowage.api.v1alpha1 import LLMDeploymentSpec, parse_spec
from stowage.engine.accuracy.record import AccuracyRecord, read_accuracy_record
from stowage.engine.better_record import BetterRecord, read_better
from stowage.engine.record import InForce, read_in_force
from stowage.engine.start_up_record import StartUp, read_start_ups
from stowage.render import names
from stowage.world import ObjectRef, World


@dataclass(frozen=True, slots=True)
class Situation:
    """What one reconciliation starts from. `spec` is a refusal when the object cannot be acted on at all."""

    world: World
    resource: Mapping[str, Any]
    spec: LLMDeploymentSpec | Refusal
    deployment: Mapping[str, Any] | None
    in_force: InForce | None
    accuracy: AccuracyRecord = field(default_factory=AccuracyRecord)
    better: BetterRecord = field(default_factory=BetterRecord)
    start_ups: tuple[StartUp, ...] = ()

    @property
    def name(self) -> str:
        """The name of the LLMDeployment."""
        return self.world.key.name

    @property
    def generation(self) -> int:
        """The generation that this reconciliation speaks about."""
        return int(self.resource["metadata"].get("generation", 0))

    @property
    def replicas(self) -> int:
        """The number of replicas that is asked for, also when the rest of the spec is refused."""
        return int((self.resource.get("spec") or {}).get("replicas", 1))

    def is_ours(self, obj: Mapping[str, Any]) -> bool:
        """Whether the live object belongs to this very LLMDeployment, not to an earlier one of the same name."""
        uid = self.resource["metadata"]["uid"]
        owners = obj["metadata"].get("ownerReferences") or ()
        return any(owner.get("uid") == uid for owner in owners)

    def children(self, kind: str) -> Iterator[tuple[ObjectRef, Mapping[str, Any]]]:
        """Our live objects of one kind that are not being deleted already."""
        for ref, obj in self.world.children.items():
            if ref.kind == kind and self.is_ours(obj) and not obj["metadata"].get("deletionTimestamp"):
                yield ref, obj


def read_situation(world: World, resource: Mapping[str, Any]) -> Situation:
    """Parse what the World holds about one live LLMDeployment."""
    blank = Situation(world, resource, _read_spec(resource), None, None)
    # Also one that is being deleted: what replaces it is made from the same record.
    deployment = next(
        (
            obj
            for ref, obj in world.children.items()
            if ref.kind == "Deployment" and ref.name == world.key.name and blank.is_ours(obj)
        ),
        None,
    )
    record = next(
        (obj for ref, obj in blank.children("ConfigMap") if names.RECORD_KEY in (obj.get("data") or {})), None
    )
    accuracy = read_accuracy_record(deployment, record)
    return replace(
        blank,
        deployment=deployment,
        in_force=read_in_force(deployment),
        accuracy=accuracy,
        better=read_better(deployment),
        start_ups=read_start_ups(deployment),
    )


def _read_spec(resource: Mapping[str, Any]) -> LLMDeploymentSpec | Refusal:
    spec = parse_spec(resource.get("spec") or {})
    if isinstance(spec, Refusal):
        return spec
    refused = unsupported_fields(spec)
    if refused:
        return Refusal(Reason.NOT_SUPPORTED, " ".join(item.message for item in refused))
    return spec
