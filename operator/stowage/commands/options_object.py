"""The options of a command as one frozen dataclass, so that each is declared once and functions pass one object on.

Typer reads the signature of a function; the one made here has a parameter for each field, with the field's type,
help and default. Nothing is parsed or checked here.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import MISSING, Field, fields
from functools import wraps
from inspect import Parameter, Signature
from typing import Any, TypeVar, get_type_hints

T = TypeVar("T")


def with_options(options: Callable[..., T]) -> Callable[[Callable[[T], None]], Callable[..., None]]:
    """Turn a function of a dataclass of options into one that Typer can add as a command."""

    def decorate(run: Callable[[T], None]) -> Callable[..., None]:
        @wraps(run)
        def command(**values: Any) -> None:
            run(options(**values))

        hints = get_type_hints(options, include_extras=True)
        parameters = [_parameter(each, hints[each.name]) for each in fields(options)]  # type: ignore[arg-type]
        command.__signature__ = Signature(parameters)  # type: ignore[attr-defined]
        command.__annotations__ = {each.name: each.annotation for each in parameters}
        return command

    return decorate


def _parameter(field: Field[Any], annotation: Any) -> Parameter:
    default = Parameter.empty if field.default is MISSING else field.default
    return Parameter(field.name, Parameter.KEYWORD_ONLY, default=default, annotation=annotation)
