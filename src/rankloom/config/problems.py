"""From pydantic's errors to lines a person can act on."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pydantic import ValidationError, ValidatorFunctionWrapHandler, WrapValidator
from pydantic_core import PydanticCustomError

EXPECTED = {
    "int_type": "must be a whole number",
    "float_type": "must be a number",
    "finite_number": "must be a finite number",
    "string_type": "must be a text",
    "bool_type": "must be true or false",
    "tuple_type": "must be a list",
    "dict_type": "must be a mapping of names to values",
    "model_type": "must be a mapping of names to values",
    "greater_than": "must be above {gt}",
    "greater_than_equal": "must be at least {ge}",
    "less_than": "must be below {lt}",
    "less_than_equal": "must be at most {le}",
    "too_short": "must have at least {min_length} entries",
    "too_long": "must have at most {max_length} entries",
    "literal_error": "must be one of {expected}",
    "string_pattern_mismatch": "must match {pattern}",
}


def problem(message: str) -> PydanticCustomError:
    """Make the error by which a validator refuses a value, with its message kept as it is."""
    template = "{message}"  # noqa: RUF027 (pydantic fills it in)
    return PydanticCustomError("problem", template, {"message": message})


def either(expected: str) -> WrapValidator:
    """Annotate a union of types, so that a wrong value is one problem and not one per type.

    Args:
        expected: What the value must be, such as `a whole number or a text`.
    """

    def check(value: Any, handler: ValidatorFunctionWrapHandler) -> Any:
        try:
            return handler(value)
        except ValidationError:
            raise problem(f"must be {expected}. Got {value!r}.") from None

    return WrapValidator(check)


def validation_problems(error: ValidationError, *, path: str = "") -> list[str]:
    """Write each of pydantic's errors as `path: what is wrong. Got x. What to do.`.

    Args:
        error: What a config's `model_validate` raised.
        path: Prefix of every location, such as `training`.
    """
    lines = []
    for one in error.errors(include_url=False):
        where = ".".join([*([path] if path else []), *(str(part) for part in one["loc"])])
        lines.append(f"{where}: {_what(one)}" if where else _what(one))
    return list(dict.fromkeys(lines))


def _what(one: Mapping[str, Any]) -> str:
    kind, context = one["type"], one.get("ctx", {})
    if kind in {"unknown_key", "problem"}:
        return str(context["message"])
    if kind == "missing":
        return "is missing. Add it."
    if kind == "value_error":
        return str(context.get("error", one["msg"]))
    if kind in EXPECTED:
        return f"{EXPECTED[kind].format(**context)}. Got {one['input']!r}."
    return f"{one['msg']}. Got {one['input']!r}."
