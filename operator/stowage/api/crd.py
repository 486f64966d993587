"""The CustomResourceDefinition, generated from the models so that both can never differ.

Turns pydantic's JSON schema into a structural schema: references are inlined, `anyOf` with null becomes an
optional field, int-or-text becomes x-kubernetes-int-or-string, titles and key patterns are dropped. It must
not add a constraint of its own: what the server checks is declared on the models.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from stowage.api.base import VALIDATIONS_KEY
from stowage.api.v1alpha1.deployment import (
    CATEGORY,
    GROUP,
    KIND,
    PLURAL,
    SHORT_NAME,
    SINGULAR,
    VERSION,
    LLMDeployment,
)

CRD_NAME: Final = f"{PLURAL}.{GROUP}"

Schema = dict[str, Any]

_KEPT: Final = (
    "description",
    "default",
    "enum",
    "exclusiveMaximum",
    "exclusiveMinimum",
    "format",
    "maxItems",
    "maxLength",
    "maxProperties",
    "maximum",
    "minItems",
    "minLength",
    "minProperties",
    "minimum",
    "pattern",
    "type",
    "x-kubernetes-int-or-string",
    "x-kubernetes-list-map-keys",
    "x-kubernetes-list-type",
    "x-kubernetes-map-type",
    VALIDATIONS_KEY,
)
_INT32_MAX: Final = 2**31 - 1
_STATUS_ENUM_MAX_LENGTH: Final = 64

_READY: Final = '.status.conditions[?(@.type=="Ready")]'
PRINTER_COLUMNS: Final[tuple[Schema, ...]] = (
    {"name": "MODEL", "type": "string", "jsonPath": ".spec.model.source"},
    {"name": "READY", "type": "string", "jsonPath": f"{_READY}.status"},
    {"name": "REASON", "type": "string", "jsonPath": f"{_READY}.reason"},
    {"name": "REPLICAS", "type": "string", "jsonPath": ".status.replicaSummary"},
    {"name": "GPUS", "type": "string", "jsonPath": ".status.plan.gpus"},
    {"name": "PARALLEL", "type": "string", "jsonPath": ".status.plan.parallel"},
    {"name": "PRECISION", "type": "string", "jsonPath": ".status.plan.precision"},
    {"name": "KV%", "type": "integer", "jsonPath": ".status.utilization.kvPercent"},
    {"name": "AGE", "type": "date", "jsonPath": ".metadata.creationTimestamp"},
    {"name": "BOUND", "type": "string", "jsonPath": ".status.plan.bound", "priority": 1},
    {"name": "MESSAGE", "type": "string", "jsonPath": f"{_READY}.message", "priority": 1},
)
"""What `kubectl get llmd` shows; priority 1 with `-o wide`."""


def structural_schema() -> Schema:
    """Give the structural OpenAPI schema of an LLMDeployment."""
    document = LLMDeployment.model_json_schema(by_alias=True)
    definitions = document["$defs"]
    root = _structural(document, definitions, keep_defaults=True)
    properties = root["properties"]
    status = _structural(document["properties"]["status"], definitions, keep_defaults=False)
    root["properties"] = {
        "apiVersion": {"type": "string", "description": f"{GROUP}/{VERSION}"},
        "kind": {"type": "string", "description": KIND},
        "metadata": {"type": "object"},
        "spec": properties["spec"],
        "status": _loosen_enums(status),
    }
    root["required"] = ["spec"]
    return root


def custom_resource_definition() -> Schema:
    """Give the CustomResourceDefinition object."""
    return {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": CRD_NAME},
        "spec": {
            "group": GROUP,
            "names": {
                "kind": KIND,
                "listKind": f"{KIND}List",
                "plural": PLURAL,
                "singular": SINGULAR,
                "shortNames": [SHORT_NAME],
                "categories": [CATEGORY],
            },
            "scope": "Namespaced",
            "versions": [
                {
                    "name": VERSION,
                    "served": True,
                    "storage": True,
                    "schema": {"openAPIV3Schema": structural_schema()},
                    "subresources": {
                        "status": {},
                        "scale": {
                            "specReplicasPath": ".spec.replicas",
                            "statusReplicasPath": ".status.replicas",
                            "labelSelectorPath": ".status.selector",
                        },
                    },
                    "additionalPrinterColumns": [dict(column) for column in PRINTER_COLUMNS],
                }
            ],
        },
    }


def _structural(node: Mapping[str, Any], definitions: Mapping[str, Any], *, keep_defaults: bool) -> Schema:
    """Convert one schema node and everything below it."""
    flat = _flatten(node, definitions)
    result: Schema = {key: flat[key] for key in _KEPT if key in flat}
    if "const" in flat:
        result["enum"] = [flat["const"]]
    if not keep_defaults or result.get("default") in (None, [], {}):
        result.pop("default", None)
    _bound_numbers(result)
    if "items" in flat:
        result["items"] = _structural(flat["items"], definitions, keep_defaults=keep_defaults)
    if "properties" in flat:
        result["properties"] = {
            name: _property(child, definitions, name in flat.get("required", ()), keep_defaults)
            for name, child in flat["properties"].items()
        }
        if flat.get("required"):
            result["required"] = sorted(flat["required"])
    elif isinstance(flat.get("additionalProperties"), Mapping):
        values = flat["additionalProperties"]
        result["additionalProperties"] = _structural(values, definitions, keep_defaults=keep_defaults)
    return result


def _property(
    node: Mapping[str, Any], definitions: Mapping[str, Any], required: bool, keep_defaults: bool
) -> Schema:
    """Convert a property; an optional object whose fields have defaults gets these as its own default.

    They are written out, because the server checks rules on a default before it fills in what is below it.
    """
    result = _structural(node, definitions, keep_defaults=keep_defaults)
    nullable = "anyOf" in node
    children = result.get("properties", {})
    defaults = {name: child["default"] for name, child in children.items() if "default" in child}
    if keep_defaults and defaults and not required and not nullable:
        result["default"] = defaults
    return result


def _flatten(node: Mapping[str, Any], definitions: Mapping[str, Any]) -> Schema:
    """Resolve `$ref` and `anyOf`; what stands beside them wins over what they point to."""
    flat = dict(node)
    target: Mapping[str, Any] | None = None
    if "$ref" in flat:
        target = definitions[flat.pop("$ref").rpartition("/")[2]]
    elif "anyOf" in flat:
        branches = [branch for branch in flat.pop("anyOf") if branch.get("type") != "null"]
        if len(branches) == 1:
            target = branches[0]
        elif {branch.get("type") for branch in branches} == {"integer", "string"}:
            flat["x-kubernetes-int-or-string"] = True
        else:
            raise ValueError(f"no structural schema for the union {branches}")
    if target is None:
        return flat
    inner = _flatten(target, definitions)
    validations = inner.get(VALIDATIONS_KEY, []) + flat.get(VALIDATIONS_KEY, [])
    merged = {**inner, **flat}
    if validations:
        merged[VALIDATIONS_KEY] = validations
    return merged


def _bound_numbers(schema: Schema) -> None:
    """Write exclusive bounds as OpenAPI 3.0 has them, and give integers their format."""
    for bound, exclusive in (("minimum", "exclusiveMinimum"), ("maximum", "exclusiveMaximum")):
        if exclusive in schema and schema[exclusive] is not True:
            schema[bound] = schema[exclusive]
            schema[exclusive] = True
    if schema.get("type") == "integer":
        schema["format"] = "int32" if schema.get("maximum", _INT32_MAX + 1) <= _INT32_MAX else "int64"


def _loosen_enums(schema: Schema) -> Schema:
    """Turn enums of status into bounded strings: an operator newer than the CRD must still be able to write.

    The three answers of a condition stay an enum, since they cannot grow.
    """
    result = dict(schema)
    if "enum" in result and "True" not in result["enum"]:
        del result["enum"]
        result["maxLength"] = _STATUS_ENUM_MAX_LENGTH
    for key in ("items", "additionalProperties"):
        if key in result:
            result[key] = _loosen_enums(result[key])
    if "properties" in result:
        result["properties"] = {name: _loosen_enums(child) for name, child in result["properties"].items()}
    return result
