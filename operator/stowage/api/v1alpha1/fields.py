"""Scalar types that several parts of the spec share, each with its bounds and its sentence.

A string that has to follow a form carries a CEL rule rather than a bare pattern, because the server then
answers with a sentence instead of a regular expression.
"""

from __future__ import annotations

from typing import Annotated, Final, TypeAlias

from pydantic import Field, StrictInt, StrictStr

from stowage.api.base import ApiModel, Rule, matches
from stowage.api.duration import DURATION_PATTERN
from stowage.api.quantity import QUANTITY_PATTERN

DNS_LABEL: Final = "[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?"
DNS_SUBDOMAIN: Final = "[a-z0-9]([a-z0-9.-]{0,251}[a-z0-9])?"
LABEL_VALUE: Final = "([A-Za-z0-9]([A-Za-z0-9._-]{0,61}[A-Za-z0-9])?)?"

_DURATION_RULE: Final = matches(DURATION_PATTERN, "must be a duration such as 50ms, 2s, 1m30s or 2h")
_QUANTITY_CEL: Final = f"string(self).matches('^({QUANTITY_PATTERN})$') && string(self).matches('[1-9]')"
_quantity_form = matches(QUANTITY_PATTERN, "")


def _is_positive_quantity(value: int | str) -> bool:
    form = _quantity_form.holds
    return form is not None and form(value) and any(digit in str(value) for digit in "123456789")


Duration: TypeAlias = Annotated[StrictStr, Field(min_length=1, max_length=32), _DURATION_RULE]
"""A length of time; `stowage.api.duration` reads it."""

Quantity: TypeAlias = Annotated[
    StrictInt | StrictStr,
    Rule(
        cel=_QUANTITY_CEL,
        message="must be a quantity above zero such as 20Gi, 1500m or 4",
        holds=_is_positive_quantity,
    ),
    Field(json_schema_extra={"maxLength": 32}),
]
"""An amount in Kubernetes' notation, as text or number; `stowage.api.quantity` reads it."""

ObjectName: TypeAlias = Annotated[
    StrictStr,
    Field(min_length=1, max_length=253),
    matches(
        DNS_SUBDOMAIN,
        "must be the name of an object: lower case letters, digits, - and .",
    ),
]
"""The name of a Kubernetes object in the same namespace."""

ConfigKey: TypeAlias = Annotated[
    StrictStr,
    Field(min_length=1, max_length=253),
    matches("[A-Za-z0-9._-]+", "must be a key of a Secret or ConfigMap: letters, digits, - _ and ."),
]
"""A key inside a Secret or ConfigMap."""

LabelValue: TypeAlias = Annotated[
    StrictStr,
    Field(max_length=63),
    matches(
        LABEL_VALUE, "must be a label value: at most 63 letters, digits, - _ and ., alphanumeric at both ends"
    ),
]
"""The value of a label."""


class SecretKeyRef(ApiModel):
    """A key of a Secret in the same namespace; only pods ever read it."""

    name: ObjectName = Field(description="Name of the Secret.")
    key: ConfigKey = Field("token", description="Key inside the Secret.")


class ConfigMapRef(ApiModel):
    """A ConfigMap in the same namespace."""

    config_map: ObjectName = Field(description="Name of the ConfigMap.")
