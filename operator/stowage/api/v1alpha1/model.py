"""spec.model: which model is served and where it comes from."""

from __future__ import annotations

from typing import Annotated, ClassVar, Final, TypeAlias

from pydantic import Field, StrictStr

from stowage.api.base import ApiModel, Rule, matches
from stowage.api.v1alpha1.fields import DNS_SUBDOMAIN, ConfigMapRef, SecretKeyRef

_HUB_NAME: Final = "[A-Za-z0-9][A-Za-z0-9._-]{0,95}"
_SOURCES: Final = (
    f"hf://{_HUB_NAME}(/{_HUB_NAME})?",
    f"pvc://{DNS_SUBDOMAIN}(/[A-Za-z0-9_][A-Za-z0-9._-]*)*",
    "oci://[a-z0-9][A-Za-z0-9._:@/-]*",
    "s3://[a-z0-9][a-z0-9.-]*[a-z0-9](/[A-Za-z0-9._=+-]+)*/?",
)

Source: TypeAlias = Annotated[
    StrictStr,
    Field(min_length=1, max_length=512),
    matches(
        "|".join(_SOURCES),
        "must be hf://ORG/NAME or hf://NAME (Hugging Face Hub), pvc://CLAIM/PATH, oci://IMAGE or s3://BUCKET/PATH",
    ),
]
"""Where a model comes from."""


class ModelSpec(ApiModel):
    """The model to serve."""

    source: Source = Field(
        description=(
            "Where the model comes from: hf://ORG/NAME (Hugging Face Hub, or the mirror in HF_ENDPOINT), "
            "pvc://CLAIM/PATH (a volume of this namespace), oci://IMAGE (an image volume) or s3://BUCKET/PATH."
        )
    )
    served_name: (
        Annotated[
            StrictStr,
            Field(min_length=1, max_length=253),
            matches("[A-Za-z0-9]([A-Za-z0-9._:/-]*[A-Za-z0-9])?", "must be letters, digits and . _ : / -"),
        ]
        | None
    ) = Field(
        None,
        description="The model name that clients put into requests. Default: the object's own name.",
    )
    revision: (
        Annotated[
            StrictStr,
            Field(min_length=1, max_length=128),
            matches("[A-Za-z0-9][A-Za-z0-9._/-]*", "must be a branch, tag or commit of the model repository"),
        ]
        | None
    ) = Field(
        None,
        description=(
            "Branch, tag or commit on the Hub. It is resolved once per generation to a commit that "
            "all replicas "
            "use. Default: the default branch."
        ),
    )
    token_secret_ref: SecretKeyRef | None = Field(
        None,
        description=(
            "Secret with the Hub token for a gated or private model. It is only ever mounted into "
            "pods of this "
            "namespace; the operator reads no Secrets."
        ),
    )
    config_ref: ConfigMapRef | None = Field(
        None,
        description=(
            "ConfigMap with the output of `stowage inspect` (key checkpoint.json), or with "
            "config.json, to plan "
            "from when the operator cannot reach the source, as in an air-gapped cluster."
        ),
    )

    rules: ClassVar[tuple[Rule, ...]] = (
        Rule(
            cel="!has(self.revision) || self.source.startsWith('hf://')",
            message="revision belongs to hf:// sources only; remove it, or name the version in the source",
            holds=lambda model: model.revision is None or model.source.startswith("hf://"),
        ),
        Rule(
            cel="!has(self.tokenSecretRef) || self.source.startsWith('hf://')",
            message="tokenSecretRef belongs to hf:// sources only; remove it",
            holds=lambda model: model.token_secret_ref is None or model.source.startswith("hf://"),
        ),
    )

    @property
    def scheme(self) -> str:
        """The part of the source before `://`: hf, pvc, oci or s3."""
        return self.source.partition("://")[0]

    @property
    def location(self) -> str:
        """The part of the source after `://`."""
        return self.source.partition("://")[2]
