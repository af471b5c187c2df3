"""The base of every config: strict, frozen, documented by the string under each field."""

from __future__ import annotations

import hashlib
import json
from typing import Any, Self

from pydantic import (
    BaseModel,
    ConfigDict,
    ModelWrapValidatorHandler,
    ValidationError,
    field_validator,
    model_validator,
)
from pydantic_core import InitErrorDetails, PydanticCustomError

from rankloom.errors import did_you_mean


class Config(BaseModel):
    """A frozen set of values; an unknown key or a wrong type is refused.

    Values only: names, numbers, tuples of them. What is derived from them is computed at build
    time and never written back.

    Example:
        >>> class TowerConfig(Config):
        ...     width: int = 64
        >>> TowerConfig(width=32).width
        32
    """

    model_config = ConfigDict(
        frozen=True,
        extra="forbid",
        strict=True,
        use_attribute_docstrings=True,
        allow_inf_nan=False,
        protected_namespaces=(),
    )

    @field_validator("*", mode="before")
    @classmethod
    def _lists_are_tuples(cls, value: Any) -> Any:
        # YAML has lists only; a strict tuple field would refuse them.
        return _with_tuples(value)

    @model_validator(mode="wrap")
    @classmethod
    def _name_unknown_keys(cls, value: Any, handler: ModelWrapValidatorHandler[Self]) -> Self:
        # pydantic says only "extra inputs are not permitted"; here the known keys are at hand.
        try:
            return handler(value)
        except ValidationError as error:
            details = [_with_hint(dict(one), cls) for one in error.errors(include_url=False)]
            raise ValidationError.from_exception_data(cls.__name__, details) from None

    def to_dict(self) -> dict[str, Any]:
        """Give plain values that read back to an equal config."""
        return self.model_dump(mode="json", by_alias=True)

    def digest(self) -> str:
        """Give the sha256 of the resolved values: the identity of what they describe.

        The order of a mapping's keys counts: models see features in the order of the run file.
        """
        text = json.dumps(self.to_dict(), separators=(",", ":"))
        return hashlib.sha256(text.encode()).hexdigest()


def _with_tuples(value: Any) -> Any:
    if isinstance(value, list):
        return tuple(map(_with_tuples, value))
    if isinstance(value, dict):
        return {key: _with_tuples(one) for key, one in value.items()}
    return value


def _with_hint(one: dict[str, Any], model: type[BaseModel]) -> InitErrorDetails:
    """Rebuild an error's details, with the nearest known key for an unknown one."""
    kind, location = one["type"], one["loc"]
    if kind == "extra_forbidden" and len(location) == 1:
        known = sorted(field.alias or name for name, field in model.model_fields.items())
        hint = did_you_mean(str(location[0]), known) or f" Known: {', '.join(known)}."
        kind = PydanticCustomError("unknown_key", "{message}", {"message": f"unknown key.{hint}"})
    elif kind in {"unknown_key", "problem"}:
        kind = PydanticCustomError(kind, "{message}", one["ctx"])
    return InitErrorDetails(type=kind, loc=location, input=one["input"], ctx=one.get("ctx", {}))
