"""What all API models share: naming, strictness, rules that server and Python both check, and list markers.

A rule is declared once, as a CEL expression with a sentence and a Python predicate of the same meaning: the
CRD carries the first, parsing a manifest without a cluster runs the second. This module must not know any
particular field.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar, Final, Self, TypeAlias

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    GetCoreSchemaHandler,
    GetJsonSchemaHandler,
    model_validator,
)
from pydantic.alias_generators import to_camel
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import CoreSchema, PydanticCustomError, core_schema

VALIDATIONS_KEY: Final = "x-kubernetes-validations"

ATOMIC_LIST: Final[dict[str, Any]] = {"x-kubernetes-list-type": "atomic"}
SET_LIST: Final[dict[str, Any]] = {"x-kubernetes-list-type": "set"}
ATOMIC_MAP: Final[dict[str, Any]] = {"x-kubernetes-map-type": "atomic"}


def map_list(key: str) -> dict[str, Any]:
    """Give the schema markers of a list whose items are told apart by the field `key`."""
    return {"x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": [key]}


@dataclass(frozen=True, slots=True)
class Rule:
    """A constraint that plain schema cannot say.

    `cel` is what the API server evaluates, `message` the sentence a user reads, `holds` the same predicate in
    Python (None for transition rules, which need the old object, and for rules that Python need not repeat).
    As `Annotated` metadata a rule applies to one value, in `ApiModel.rules` to a whole object.
    """

    cel: str
    message: str
    holds: Callable[[Any], bool] | None
    message_cel: str | None = None
    explain: Callable[[Any], str] | None = None

    def check(self, value: Any) -> None:
        """Raise pydantic's error with the rule's sentence if the value breaks the rule."""
        if self.holds is not None and not self.holds(value):
            sentence = self.explain(value) if self.explain else self.message
            raise PydanticCustomError("stowage_rule", "{sentence}", {"sentence": sentence})

    def to_schema(self) -> dict[str, Any]:
        """Give the entry of x-kubernetes-validations."""
        entry = {"rule": self.cel, "message": self.message}
        if self.message_cel:
            entry["messageExpression"] = self.message_cel
        return entry

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        """Check the rule after the value's own validation."""

        def checked(value: Any) -> Any:
            self.check(value)
            return value

        return core_schema.no_info_after_validator_function(checked, handler(source))

    def __get_pydantic_json_schema__(
        self, schema: CoreSchema, handler: GetJsonSchemaHandler
    ) -> JsonSchemaValue:
        """Add the rule to the generated schema."""
        json_schema = handler(schema)
        json_schema.setdefault(VALIDATIONS_KEY, []).append(self.to_schema())
        return json_schema


def matches(pattern: str, message: str) -> Rule:
    """Make a rule that the whole string matches `pattern`, in the syntax that Go and Python share."""
    if "'" in pattern or "\\" in pattern:
        raise ValueError(f"write the pattern without quotes and backslashes: {pattern}")
    compiled = re.compile(pattern, re.ASCII)
    return Rule(
        cel=f"self.matches('^({pattern})$')",
        message=message,
        holds=lambda value: compiled.fullmatch(str(value)) is not None,
    )


class ApiModel(BaseModel):
    """Base of all API types: camelCase outside, snake_case inside, frozen, rules checked on construction."""

    model_config = ConfigDict(
        alias_generator=to_camel,
        populate_by_name=True,
        frozen=True,
        extra="forbid",
    )
    rules: ClassVar[tuple[Rule, ...]] = ()

    @model_validator(mode="after")
    def _check_rules(self) -> Self:
        for name, field in type(self).model_fields.items():
            if isinstance(field.json_schema_extra, dict):
                _check_unique(field.alias or name, getattr(self, name), field.json_schema_extra)
        for rule in self.rules:
            rule.check(self)
        return self

    @classmethod
    def __get_pydantic_json_schema__(
        cls, schema: CoreSchema, handler: GetJsonSchemaHandler
    ) -> JsonSchemaValue:
        """Add the class's rules to its schema."""
        json_schema = handler(schema)
        if cls.rules:
            target = handler.resolve_ref_schema(json_schema)
            target[VALIDATIONS_KEY] = [rule.to_schema() for rule in cls.rules]
        return json_schema

    def to_dict(self) -> dict[str, Any]:
        """Give the JSON form that the API server stores: camelCase keys, unset fields left out."""
        return self.model_dump(mode="json", by_alias=True, exclude_none=True)


class StatusModel(ApiModel):
    """Base of status types: fields of newer versions are ignored on reading, not refused."""

    model_config = ConfigDict(extra="ignore")


def _check_unique(field_name: str, items: Any, markers: Mapping[str, Any]) -> None:
    """Refuse what the server calls a duplicate in a list that is a set or a map."""
    if not isinstance(items, tuple) or markers.get("x-kubernetes-list-type") not in ("set", "map"):
        return
    keys: list[str] = markers.get("x-kubernetes-list-map-keys", [])
    seen = set()
    for item in items:
        identity = getattr(item, keys[0]) if keys else item
        if identity in seen:
            sentence = f"'{identity}' stands twice in {field_name}; keep one"
            raise PydanticCustomError("stowage_rule", "{sentence}", {"sentence": sentence})
        seen.add(identity)


def clip(limit: int) -> Callable[[Any], Any]:
    """Make a validator that shortens a string to `limit` characters, so that none blocks a write."""

    def shorten(value: Any) -> Any:
        if isinstance(value, str) and len(value) > limit:
            return value[: limit - 1] + "…"
        return value

    return shorten


Sentence: TypeAlias = Annotated[str, BeforeValidator(clip(512)), Field(max_length=512)]
"""A text for people in status; longer ones are shortened."""

Message: TypeAlias = Annotated[str, BeforeValidator(clip(2048)), Field(max_length=2048)]
"""The message of a condition; longer ones are shortened."""

Word: TypeAlias = Annotated[str, BeforeValidator(clip(128)), Field(max_length=128)]
"""A short text in status, as for a column."""
