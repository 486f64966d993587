"""Write docs/api.md, reasons.md and cli.md from models, tables and options, or with --check say how they differ.

Everything in these pages comes from the same source as the CRD, so that documentation, server and code cannot
disagree. The prose around the tables is all that stands here.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from stowage.api.crd import CRD_NAME, PRINTER_COLUMNS, structural_schema
from stowage.api.reason_docs import CONDITION_MEANINGS, REASON_DOCS
from stowage.api.reasons import ConditionType, Reason
from stowage.api.support import limited_fields
from tools.cli_page import CLI_PAGE, render_cli
from tools.generated import run

ROOT = Path(__file__).resolve().parent.parent
API_PAGE = ROOT / "docs" / "api.md"
REASONS_PAGE = ROOT / "docs" / "reasons.md"
GENERATED_NOTE = "<!-- Generated from operator/stowage/api by `make crds`; edits here are overwritten. -->\n"

UNREADABLE = 2**53
"""Bounds from here on only guard the number format and are not worth a reader's time."""

Schema = Mapping[str, Any]


def render_api() -> str:
    """Give the text of docs/api.md."""
    schema = structural_schema()
    parts = [
        GENERATED_NOTE,
        "# LLMDeployment (`stowage.dev/v1alpha1`)\n",
        f"Custom resource `{CRD_NAME}`, short name `llmd`, category `llm`. {schema['description']}\n",
        "```yaml\napiVersion: stowage.dev/v1alpha1\nkind: LLMDeployment\nmetadata:\n  name: llama\nspec:\n"
        '  model:\n    source: "hf://Qwen/Qwen3-8B"\n```\n',
        "A default in the tables is written into the object by the API server. Where there is none, the plan "
        "chooses and `status.plan` shows the choice; a value that is set is a pin, and a pin that "
        "cannot work "
        "is refused with the reason, never changed.\n",
        "Quantities are written as in Kubernetes (`20Gi`, `1500m`, `4`), durations as `50ms`, `2s`, `1m30s` "
        "or `2h`.\n",
        "## spec\n",
        _field_table(schema["properties"]["spec"], "spec"),
        "## What the API server refuses\n",
        "Besides types and bounds, each with this sentence:\n",
        _rule_list(schema),
        "## What this version does not act on yet\n",
        "These are part of the API and refused with reason `NotSupported`, never ignored:\n",
        "".join(f"- `spec.{path}`: {advice}.\n" for path, advice in limited_fields()),
        "## status\n",
        "Written by the operator, never an input. There is no phase: `Ready` is the summary, and its "
        "reason and "
        "message say why ([reasons](reasons.md)).\n",
        _field_table(schema["properties"]["status"], "status"),
        "## kubectl get\n",
        _column_table(),
    ]
    return "\n".join(parts)


def render_reasons() -> str:
    """Give the text of docs/reasons.md."""
    parts = [
        GENERATED_NOTE,
        "# Conditions and reasons\n",
        "`kubectl get llmd` shows the reason of the condition `Ready`, `-o wide` its message as "
        "well. Reasons "
        "are stable: new ones may come, none is renamed. The same reasons stand in "
        "`status.plan.rejections`, in "
        "events and in what the command line prints.\n",
        "## Conditions\n",
        _table(
            ("Condition", "Meaning"),
            [(f"`{each}`", _cell(CONDITION_MEANINGS[each])) for each in ConditionType],
        ),
        "A condition is `Unknown` until Stowage has come to a verdict. `kubectl wait "
        "--for=condition=Ready llmd/NAME` "
        "waits until a model is served; with `mode: Plan`, wait for `Planned`.\n",
        "## Reasons\n",
        _table(("Reason", "On", "Meaning", "What to do"), [_reason_row(each) for each in Reason]),
    ]
    return "\n".join(parts)


def _reason_row(reason: Reason) -> tuple[str, str, str, str]:
    doc = REASON_DOCS[reason]
    everywhere = len(doc.conditions) == len(ConditionType)
    carried_by = "all" if everywhere else ", ".join(doc.conditions) or "an event"
    return f"`{reason}`", carried_by, _cell(doc.meaning), _cell(doc.hint)


def _field_table(schema: Schema, path: str) -> str:
    rows = [
        (f"`{name}`", _type(field), _default(field), _bounds(field), _meaning(field, required))
        for name, field, required in _fields(schema, path)
    ]
    return _table(("Field", "Type", "Default", "Bounds", "Meaning"), rows)


def _fields(schema: Schema, path: str) -> Iterator[tuple[str, Schema, bool]]:
    """Walk all fields below a schema, parents before children, required ones first."""
    required = schema.get("required", ())
    properties = schema.get("properties", {})
    for name in sorted(properties, key=lambda each: (each not in required, each)):
        field = properties[name]
        here = f"{path}.{name}"
        yield here, field, name in required
        yield from _fields(field, here)
        if "items" in field:
            yield from _fields(field["items"], f"{here}[]")


def _type(field: Schema) -> str:
    if field.get("x-kubernetes-int-or-string"):
        return "quantity"
    if field.get("type") == "array":
        kind = field.get("x-kubernetes-list-type", "atomic")
        keys = ", ".join(field.get("x-kubernetes-list-map-keys", ()))
        return f"list of {_type(field['items'])} ({kind}{' by ' + keys if keys else ''})"
    if "additionalProperties" in field:
        return f"map of {_type(field['additionalProperties'])}"
    return str(field["type"])


def _default(field: Schema) -> str:
    default = field.get("default")
    if default is None or isinstance(default, Mapping):
        return ""
    return f"`{default}`"


def _bounds(field: Schema) -> str:
    """Say the bounds of a field, and those of the items of a list or map."""
    words = []
    if "enum" in field:
        words.append(" / ".join(f"`{value}`" for value in field["enum"]))
    if "minimum" in field:
        words.append(f"{'>' if field.get('exclusiveMinimum') else '≥'} {field['minimum']}")
    if field.get("maximum", UNREADABLE) < UNREADABLE:
        words.append(f"≤ {field['maximum']}")
    for key, unit in (("maxLength", "characters"), ("maxItems", "items"), ("maxProperties", "entries")):
        if key in field:
            words.append(f"≤ {field[key]} {unit}")
    inner = field.get("items") or field.get("additionalProperties")
    if isinstance(inner, Mapping) and "properties" not in inner and _bounds(inner):
        words.append(f"each {_bounds(inner)}")
    return ", ".join(words)


def _meaning(field: Schema, required: bool) -> str:
    text = _cell(field.get("description", ""))
    return f"**Required.** {text}" if required else text


def _rule_list(schema: Schema) -> str:
    return "".join(f"- `{path}`: {message}\n" for path, message in _rules(schema, ""))


def _rules(schema: Schema, path: str) -> Iterator[tuple[str, str]]:
    """List the sentences of all rules below a schema."""
    for rule in schema.get("x-kubernetes-validations", ()):
        yield path or "metadata.name", rule["message"]
    for name, field in sorted(schema.get("properties", {}).items()):
        yield from _rules(field, f"{path}.{name}" if path else name)
    for key, suffix in (("items", "[]"), ("additionalProperties", "{}")):
        inner = schema.get(key)
        if isinstance(inner, Mapping):
            yield from _rules(inner, path + suffix)


def _column_table() -> str:
    rows = [
        (column["name"], f"`{column['jsonPath']}`", "with `-o wide`" if column.get("priority") else "always")
        for column in PRINTER_COLUMNS
    ]
    return _table(("Column", "Shows", "When"), rows)


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "".join(f"| {' | '.join(cells)} |\n" for cells in lines)


def _cell(text: str) -> str:
    return " ".join(text.replace("|", "\\|").split())


def main(arguments: list[str] | None = None) -> int:
    """Write or check the pages; the exit status is 1 when --check finds a difference."""
    pages = {API_PAGE: render_api, REASONS_PAGE: render_reasons, CLI_PAGE: render_cli}
    return run(pages, arguments, description=__doc__ or "")


if __name__ == "__main__":
    sys.exit(main())
