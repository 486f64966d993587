"""The generated CRD is structural, bounded, documented and up to date."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml

from stowage.api.crd import PRINTER_COLUMNS, custom_resource_definition, structural_schema
from stowage.api.v1alpha1 import LLMDeploymentSpec, parse_spec
from tools import generate_crd, generate_docs

FORBIDDEN_KEYS = {
    "$ref",
    "anyOf",
    "oneOf",
    "allOf",
    "title",
    "const",
    "propertyNames",
    "$defs",
    "prefixItems",
}


def nodes(schema: Mapping[str, Any], path: str = "") -> Iterator[tuple[str, Mapping[str, Any]]]:
    yield path, schema
    for name, child in schema.get("properties", {}).items():
        yield from nodes(child, f"{path}.{name}")
    for key in ("items", "additionalProperties"):
        if isinstance(schema.get(key), Mapping):
            yield from nodes(schema[key], f"{path}[]")


NODES = {path: node for path, node in nodes(structural_schema()) if path.startswith((".spec", ".status"))}


def is_structural(node: Mapping[str, Any]) -> bool:
    has_type = "type" in node or node.get("x-kubernetes-int-or-string") is True
    return (
        has_type
        and not FORBIDDEN_KEYS & set(node)
        and not {"properties", "additionalProperties"} <= set(node)
    )


def is_bounded(node: Mapping[str, Any]) -> bool:
    """Whether a node has the bound that its type can have."""
    kind = node.get("type", "int-or-string")
    if kind == "object":
        return "properties" in node or node.get("maxProperties", 0) > 0
    return {
        "string": "enum" in node or "maxLength" in node,
        "int-or-string": "maxLength" in node,
        "array": "maxItems" in node,
        "integer": {"minimum", "maximum"} <= set(node),
        "number": {"minimum", "maximum"} <= set(node),
        "boolean": True,
    }[kind]


def test_every_node_is_structural() -> None:
    assert len(NODES) > 200
    assert [path for path, node in NODES.items() if not is_structural(node)] == []


def test_every_string_list_map_and_number_has_bounds() -> None:
    assert [path for path, node in NODES.items() if not is_bounded(node)] == []


def test_every_field_has_a_description() -> None:
    silent = [
        path
        for path, node in nodes(structural_schema())
        if not path.endswith("[]") and path != ".metadata" and not node.get("description")
    ]
    assert silent == []


def test_every_rule_has_a_sentence_and_no_rule_nests_all() -> None:
    rules = [
        rule for _, node in nodes(structural_schema()) for rule in node.get("x-kubernetes-validations", ())
    ]
    assert len(rules) > 40
    assert all(rule["message"].strip() and "\n" not in rule["message"] for rule in rules)
    assert all(rule["rule"].count(".all(") <= 1 for rule in rules)


@pytest.mark.parametrize(
    ("path", "kind", "keys"),
    [
        pytest.param(".status.conditions", "map", ["type"], id="conditions by type"),
        pytest.param(".spec.runtime.env", "map", ["name"], id="env by name"),
        pytest.param(".spec.precision.alternatives", "map", ["source"], id="alternatives by source"),
        pytest.param(".spec.hardware.gpus", "set", None, id="gpus are a set"),
        pytest.param(".spec.runtime.args", "atomic", None, id="args are replaced as a whole"),
        pytest.param(".spec.hardware.tolerations", "atomic", None, id="tolerations are replaced as a whole"),
    ],
)
def test_list_types_are_what_the_design_says(path: str, kind: str, keys: list[str] | None) -> None:
    node = dict(nodes(structural_schema()))[path]
    assert node["x-kubernetes-list-type"] == kind
    assert node.get("x-kubernetes-list-map-keys") == keys


@pytest.mark.parametrize("name", ["plan", "engine", "utilization"])
def test_parts_of_status_are_written_as_a_whole(name: str) -> None:
    assert dict(nodes(structural_schema()))[f".status.{name}"]["x-kubernetes-map-type"] == "atomic"


def test_defaults_of_the_schema_are_those_of_the_models() -> None:
    def defaults(schema: Mapping[str, Any]) -> dict[str, Any]:
        found = {}
        for name, node in schema["properties"].items():
            if "default" in node:
                found[name] = node["default"]
        return found

    spec = parse_spec({"model": {"source": "hf://a/b"}})
    assert isinstance(spec, LLMDeploymentSpec)
    written = spec.to_dict()
    for name, value in defaults(structural_schema()["properties"]["spec"]).items():
        inner = {key: written[name][key] for key in value} if isinstance(value, dict) else written[name]
        assert inner == value, name


def test_status_has_no_defaults_and_no_phase() -> None:
    status = structural_schema()["properties"]["status"]
    assert not any("default" in node for _, node in nodes(status))
    assert "phase" not in status["properties"]


def test_a_newer_operator_may_write_words_that_this_crd_does_not_know() -> None:
    enums = {path for path, node in nodes(structural_schema()) if ".status" in path and "enum" in node}
    assert enums == {".status.conditions[].status"}


def test_scale_and_status_are_subresources() -> None:
    version = custom_resource_definition()["spec"]["versions"][0]
    assert version["subresources"] == {
        "status": {},
        "scale": {
            "specReplicasPath": ".spec.replicas",
            "statusReplicasPath": ".status.replicas",
            "labelSelectorPath": ".status.selector",
        },
    }


def test_printer_columns_are_those_of_the_design_and_point_at_fields() -> None:
    always = [column["name"] for column in PRINTER_COLUMNS if not column.get("priority")]
    wide = [column["name"] for column in PRINTER_COLUMNS if column.get("priority")]
    assert always == ["MODEL", "READY", "REASON", "REPLICAS", "GPUS", "PARALLEL", "PRECISION", "KV%", "AGE"]
    assert wide == ["BOUND", "MESSAGE"]
    known = {path for path, _ in nodes(structural_schema())} | {".metadata.creationTimestamp"}
    paths = [column["jsonPath"].replace('[?(@.type=="Ready")]', "[]") for column in PRINTER_COLUMNS]
    assert [path for path in paths if path not in known] == []


@pytest.mark.parametrize("generator", [generate_crd, generate_docs])
def test_the_files_in_the_repository_are_up_to_date(
    generator: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    assert generator.main(["--check"]) == 0, capsys.readouterr().out


def test_generating_twice_gives_the_same_bytes() -> None:
    assert generate_crd.render() == generate_crd.render()
    assert yaml.safe_load(generate_crd.render()) == custom_resource_definition()


def test_check_finds_an_edited_file_and_prints_the_difference(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    target = tmp_path / "crd.yaml"
    assert generate_crd.main(["--output", str(target)]) == 0
    assert generate_crd.main(["--check", "--output", str(target)]) == 0
    target.write_text(target.read_text().replace("maxGPUs", "mostGPUs"))
    assert generate_crd.main(["--check", "--output", str(target)]) == 1
    assert "-                  mostGPUs:" in capsys.readouterr().out
