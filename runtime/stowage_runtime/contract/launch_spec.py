"""What the operator tells the agent to start.

It is mounted as a file from an immutable ConfigMap that is named after the content's hash, so it must never
hold anything secret or anything that changes while a pod lives.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from stowage_runtime.contract.fields import (
    Record,
    choice,
    constant,
    defaulted,
    free_text,
    integer,
    nested,
    optional,
    sequence,
    string_map,
    text,
    wire,
)

AGENT_OWNED_OPTIONS = frozenset({"--model", "--host", "--port", "--served-model-name", "--uds"})
"""vLLM options that only the agent may give, since they depend on the pod."""

SECRET_OPTIONS = frozenset({"--api-key", "--hf-token"})
"""vLLM options whose value is a secret; a LaunchSpec is readable by everybody who may read ConfigMaps."""

SECRET_ENVIRONMENT = frozenset({"HF_TOKEN", "HUGGING_FACE_HUB_TOKEN", "VLLM_API_KEY"})
"""Variables that may come from a Secret only, never from a LaunchSpec."""

_DNS_LABEL = r"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?"
_DAY_SECONDS = 86_400


@dataclass(frozen=True)
class ModelRef(Record):
    """Where the weights come from: a Hub repository at one commit, or a folder of a mounted volume."""

    kind: str = field(metadata=wire(choice("hf", "pvc")))
    repo_id: str | None = field(
        default=None,
        metadata=wire(optional(text("a Hub repository like org/name", r"[\w.-]+(/[\w.-]+)?", 200))),
    )
    path: str | None = field(
        default=None, metadata=wire(optional(text("an absolute path in the container", r"/.*")))
    )
    revision: str | None = field(
        default=None,
        metadata=wire(optional(text("a commit of the repository", r"[A-Za-z0-9][\w./-]*", 200))),
    )

    def inconsistencies(self, prefix: str) -> list[str]:
        """Check that a Hub model has repository and commit, and a volume a path."""
        if self.kind == "pvc":
            return (
                []
                if self.path
                else [f"{prefix}path is missing; a pvc model needs the path in the container."]
            )
        missing = [
            name for name, value in (("repoId", self.repo_id), ("revision", self.revision)) if not value
        ]
        return [f"{prefix}{name} is missing; a hf model needs repository and commit." for name in missing]


@dataclass(frozen=True)
class EngineExpectation(Record):
    """The engine that the plan was made for; the agent compares it with what the image really has."""

    version: str = field(metadata=wire(text("a vLLM version like 0.32.0", r"\d+\.\d+\.\d+[\w.+-]*", 64)))
    hardware: str = field(metadata=wire(choice("GPU", "CPU")))


@dataclass(frozen=True)
class GpuExpectation(Record):
    """The GPUs that the plan was made for.

    ``product`` is written as NVIDIA GPU Feature Discovery writes its label; ``min_total_memory_bytes`` is
    compared with what the driver reports as total memory of each GPU.
    """

    count: int = field(metadata=wire(integer(1, 64)))
    product: str = field(metadata=wire(text("a GPU product name like NVIDIA-L4", maximum_length=128)))
    min_total_memory_bytes: int = field(metadata=wire(integer(0)))
    compute_capability: str = field(metadata=wire(text("a compute capability like 9.0", r"\d{1,2}\.\d", 4)))


@dataclass(frozen=True)
class LaunchSpec(Record):
    """One engine start, complete but for what only the pod knows (its address, its secrets).

    ``args`` are vLLM options without those in AGENT_OWNED_OPTIONS; ``startup_timeout_seconds`` covers
    everything from the agent's start to its own completion; ``drain_timeout_seconds`` everything from SIGTERM
    to the engine's end.
    """

    namespace: str = field(
        metadata=wire(text("a namespace name of lower-case letters, digits and '-'", _DNS_LABEL, 63))
    )
    name: str = field(
        metadata=wire(text("an object name of lower-case letters, digits and '-'", _DNS_LABEL, 63))
    )
    served_model_name: str = field(
        metadata=wire(text("the model name that requests use", maximum_length=256))
    )
    model: ModelRef = field(metadata=wire(nested(ModelRef)))
    engine: EngineExpectation = field(metadata=wire(nested(EngineExpectation)))
    args: tuple[str, ...] = field(metadata=wire(sequence(free_text(65_536), "a list of vLLM options")))
    env: Mapping[str, str] = field(
        metadata=wire(string_map("an object from variable names to strings", r"[A-Za-z_][A-Za-z0-9_]*"))
    )
    startup_timeout_seconds: int = field(metadata=wire(integer(1, _DAY_SECONDS)))
    drain_timeout_seconds: int = field(metadata=wire(integer(0, _DAY_SECONDS)))
    gpus: GpuExpectation | None = field(default=None, metadata=wire(optional(nested(GpuExpectation))))
    port: int = field(default=8000, metadata=wire(defaulted(integer(1, 65_535))))
    agent_port: int = field(default=9400, metadata=wire(defaulted(integer(1, 65_535))))
    schema: int = field(
        default=1, metadata=wire(constant(1, "use the same Stowage version for operator and agent"))
    )

    def inconsistencies(self, prefix: str) -> list[str]:
        """Check for what does not belong here, ports that collide, GPUs that do not match the hardware."""
        options = {arg.split("=", 1)[0] for arg in self.args}
        problems = [
            f"{prefix}args has {option}; the agent sets it itself, remove it."
            for option in sorted(options & AGENT_OWNED_OPTIONS)
        ]
        problems += [
            f"{prefix}args has {option}; a secret may only come from a Secret, use VLLM_API_KEY or HF_TOKEN."
            for option in sorted(options & SECRET_OPTIONS)
        ]
        problems += [
            f"{prefix}env has {name}; a secret may only come from a Secret, use secretKeyRef."
            for name in sorted(self.env.keys() & SECRET_ENVIRONMENT)
        ]
        if self.port == self.agent_port:
            problems.append(f"{prefix}agentPort is {self.agent_port}, the engine's own port; choose another.")
        if self.engine.hardware == "GPU" and self.gpus is None:
            problems.append(f"{prefix}gpus is missing; engine.hardware GPU needs the GPUs of the plan.")
        if self.engine.hardware == "CPU" and self.gpus is not None:
            problems.append(f"{prefix}gpus is set; engine.hardware CPU has none, remove it.")
        return problems
