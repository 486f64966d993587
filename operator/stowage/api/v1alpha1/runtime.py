"""spec.runtime: how the pods look, as far as that is the user's to say."""

from __future__ import annotations

from typing import Annotated, Any, ClassVar, Final

from pydantic import Field, StrictStr

from stowage.api.base import ATOMIC_LIST, ApiModel, Rule, map_list, matches
from stowage.api.plan_options import OPTION_IS_FREE_CEL, OPTION_TAKEN_MESSAGE_CEL, option_conflict
from stowage.api.v1alpha1.fields import ConfigKey, Duration, LabelValue, ObjectName, Quantity

RESERVED_ENV: Final = (
    "CUDA_VISIBLE_DEVICES",
    "HF_HOME",
    "HF_TOKEN",
    "HOME",
    "HUGGING_FACE_HUB_TOKEN",
    "LOGNAME",
    "NODE_NAME",
    "NVIDIA_VISIBLE_DEVICES",
    "POD_IP",
    "POD_NAME",
    "POD_NAMESPACE",
    "USER",
    "VLLM_API_KEY",
    "VLLM_CACHE_ROOT",
    "VLLM_CPU_KVCACHE_SPACE",
    "XDG_CACHE_HOME",
)
"""Environment variables that Stowage sets itself or that would make its plan or its checks untrue."""

COMPUTE_RESOURCES: Final = ("cpu", "memory", "ephemeral-storage")
OWN_KEY_PREFIXES: Final = ("stowage.dev/", "app.kubernetes.io/")


class KeyRef(ApiModel):
    """A key of a Secret or ConfigMap in the same namespace."""

    name: ObjectName = Field(description="Name of the object.")
    key: ConfigKey = Field(description="Key inside the object.")


class EnvSource(ApiModel):
    """Where the value of an environment variable comes from."""

    secret_key_ref: KeyRef | None = Field(None, description="A key of a Secret.")
    config_map_key_ref: KeyRef | None = Field(None, description="A key of a ConfigMap.")

    rules: ClassVar[tuple[Rule, ...]] = (
        Rule(
            cel="has(self.secretKeyRef) != has(self.configMapKeyRef)",
            message="valueFrom needs exactly one of secretKeyRef and configMapKeyRef",
            holds=lambda it: (it.secret_key_ref is None) != (it.config_map_key_ref is None),
        ),
    )


class EnvVar(ApiModel):
    """An environment variable of the engine's container."""

    name: Annotated[
        StrictStr,
        Field(min_length=1, max_length=128),
        matches("[A-Za-z_][A-Za-z0-9_]*", "must be letters, digits and _, not beginning with a digit"),
        Rule(
            cel=f"!(self in {list(RESERVED_ENV)})",
            message=(
                "is set by Stowage or would defeat its checks; remove it "
                "(a Hub token belongs into spec.model.tokenSecretRef, KV memory into "
                "spec.engine.kvCacheMemory)"
            ),
            holds=lambda name: name not in RESERVED_ENV,
        ),
    ] = Field(description="Name of the variable.")
    value: Annotated[StrictStr, Field(max_length=4096)] | None = Field(
        None, description="Value of the variable."
    )
    value_from: EnvSource | None = Field(None, description="Takes the value from a Secret or ConfigMap.")

    rules: ClassVar[tuple[Rule, ...]] = (
        Rule(
            cel="!(has(self.value) && has(self.valueFrom))",
            message="an env entry takes value or valueFrom, not both",
            holds=lambda it: it.value is None or it.value_from is None,
        ),
    )


class LocalObjectReference(ApiModel):
    """An object in the same namespace."""

    name: ObjectName = Field(description="Name of the object.")


_ONLY_COMPUTE: Final = Rule(
    cel=f"self.all(k, k in {list(COMPUTE_RESOURCES)})",
    message=(
        "may hold cpu, memory and ephemeral-storage only; the number of GPUs follows from the plan "
        "(spec.parallelism and spec.hardware limit it)"
    ),
    holds=lambda amounts: all(key in COMPUTE_RESOURCES for key in amounts),
)
_FOREIGN_KEYS: Final = Rule(
    cel="self.all(k, !k.startsWith('stowage.dev/') && !k.startsWith('app.kubernetes.io/'))",
    message="keys under stowage.dev/ and app.kubernetes.io/ are set by Stowage; use other keys",
    holds=lambda labels: not any(key.startswith(OWN_KEY_PREFIXES) for key in labels),
)
_FREE_OPTION: Final = Rule(
    cel=OPTION_IS_FREE_CEL,
    message="names an option that Stowage sets itself; use the field of the spec instead",
    holds=lambda argument: option_conflict(argument) is None,
    message_cel=OPTION_TAKEN_MESSAGE_CEL,
    explain=lambda argument: option_conflict(argument) or "",
)


class ResourcesSpec(ApiModel):
    """CPU, memory and disk of the engine's container. GPUs follow from the plan."""

    requests: Annotated[dict[str, Quantity], _ONLY_COMPUTE] = Field(
        default_factory=dict, max_length=3, description="What is reserved. Default: from the plan's ledger."
    )
    limits: Annotated[dict[str, Quantity], _ONLY_COMPUTE] = Field(
        default_factory=dict,
        max_length=3,
        description="What may be used at most. Default: no limit but GPUs.",
    )


class RuntimeSpec(ApiModel):
    """The pods: image, options, environment, resources, identity."""

    image: (
        Annotated[
            StrictStr,
            Field(min_length=1, max_length=512),
            matches(
                "[a-z0-9][A-Za-z0-9._:@/-]*", "must be a container image such as vllm/vllm-openai:v0.32.0"
            ),
        ]
        | None
    ) = Field(
        None,
        description="A vLLM image to use instead of the default one; engine.version must name its release.",
    )
    args: tuple[Annotated[StrictStr, Field(min_length=1, max_length=1024), _FREE_OPTION], ...] = Field(
        (),
        max_length=64,
        description=(
            "Further options for vLLM, passed on as they are. Options that the plan sets are refused."
        ),
        json_schema_extra=ATOMIC_LIST,
    )
    env: tuple[EnvVar, ...] = Field(
        (),
        max_length=64,
        description="Further environment variables of the engine's container.",
        json_schema_extra=map_list("name"),
    )
    resources: ResourcesSpec = Field(
        default_factory=ResourcesSpec, description="CPU, memory and disk of the engine's container."
    )
    startup_timeout: Duration | None = Field(
        None,
        description=(
            "How long a replica may take from pod start to serving. Default: estimated from the model's size."
        ),
    )
    image_pull_secrets: tuple[LocalObjectReference, ...] = Field(
        (),
        max_length=16,
        description="Secrets for pulling the image.",
        json_schema_extra=map_list("name"),
    )
    service_account_name: ObjectName | None = Field(
        None, description="ServiceAccount of the pods; its token is not mounted. Default: default."
    )
    priority_class_name: ObjectName | None = Field(None, description="PriorityClass of the pods.")
    pod_labels: Annotated[dict[str, LabelValue], _FOREIGN_KEYS] = Field(
        default_factory=dict, max_length=32, description="Further labels of the pods."
    )
    pod_annotations: Annotated[dict[str, Annotated[StrictStr, Field(max_length=4096)]], _FOREIGN_KEYS] = (
        Field(default_factory=dict, max_length=32, description="Further annotations of the pods.")
    )


def env_to_pod(entries: tuple[EnvVar, ...]) -> list[dict[str, Any]]:
    """Give the entries as a pod's `env` list."""
    return [entry.to_dict() for entry in entries]
