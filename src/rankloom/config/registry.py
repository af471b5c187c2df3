"""Find an architecture by its name in a literal table, or explain why there is none."""

from __future__ import annotations

import importlib
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, cast, get_args

from pydantic import GetCoreSchemaHandler, GetJsonSchemaHandler
from pydantic_core import CoreSchema, core_schema

from rankloom.config.base import Config
from rankloom.config.problems import problem
from rankloom.errors import ConfigError, did_you_mean

TARGET = re.compile(r"[A-Za-z_][\w.]*:[A-Za-z_]\w*")


@dataclass(frozen=True, kw_only=True)
class ArchitectureSpec:
    """Where an architecture stands and which paper it builds."""

    target: str
    """`module:Class`; imported only when the architecture is used."""
    title: str
    """One line that says what it is."""
    paper: str | None = None
    """`arXiv:...` or another citation; the file header of the class gives the same one."""


@dataclass(frozen=True)
class Choice:
    """An architecture that a run file chose, with its config."""

    kind: str
    """Its name in the slot's table, or `package.module:Class`."""
    cls: type[Any]
    """The class."""
    config: Config
    """The class's own config."""

    def to_dict(self) -> dict[str, Any]:
        """Give plain values that read back to an equal choice."""
        return {"kind": self.kind} | self.config.to_dict() | {"kind": self.kind}


def resolve(kind: str, table: Mapping[str, ArchitectureSpec], *, path: str) -> type[Any]:
    """Import the class registered as `kind`, or a user's own `package.module:Class`.

    Args:
        kind: A name of `table`, or `package.module:Class` from the user's own run file.
        table: The slot's table.
        path: The option that named it, for messages.

    Raises:
        ConfigError: The name is unknown (the message gives the nearest), or the module or the
            class cannot be imported.
    """
    target = table[kind].target if kind in table else kind
    if not TARGET.fullmatch(target):
        raise ConfigError(
            f"{path}: unknown architecture {kind!r}.{did_you_mean(kind, table)} "
            f"Known: {', '.join(sorted(table))}, or a package.module:Class of your own."
        )
    module_name, _, class_name = target.partition(":")
    try:
        found = getattr(importlib.import_module(module_name), class_name)
    except (ImportError, AttributeError) as error:
        raise ConfigError(f"{path}: cannot import {target!r} ({error}). Is it installed?") from None
    config = getattr(found, "Config", None)
    if not (isinstance(config, type) and issubclass(config, Config)):
        raise ConfigError(
            f"{path}: {target!r} has no attribute `Config` that is a rankloom.Config. Add one."
        )
    return found


class ChoiceOf:
    """Annotation that reads `{kind: name, ...}` as the `Choice` of the class so named.

    `Annotated[Choice, ChoiceOf(INTERACTIONS)]`: only the chosen class's module is imported.
    """

    def __init__(self, table: Mapping[str, ArchitectureSpec]) -> None:
        self.table = table

    def __get_pydantic_core_schema__(
        self, source: Any, handler: GetCoreSchemaHandler
    ) -> CoreSchema:
        """Validate through the chosen class's own config; dump it with its `kind`."""
        return core_schema.no_info_plain_validator_function(
            self.validate,
            serialization=core_schema.plain_serializer_function_ser_schema(Choice.to_dict),
        )

    def __get_pydantic_json_schema__(
        self, schema: CoreSchema, handler: GetJsonSchemaHandler
    ) -> dict[str, Any]:
        """Describe every architecture of the table, for editors."""
        known = [
            _with_kind(inlined_json_schema(resolve(name, self.table, path=name).Config))
            for name in sorted(self.table)
        ]
        kind = {"type": "string", "pattern": ":"}
        own = {"type": "object", "properties": {"kind": kind}, "required": ["kind"]}
        return {"anyOf": [*known, own, {"enum": sorted(self.table)}]}

    def validate(self, value: Any) -> Choice:
        """Read a mapping with `kind` (or a bare name), or pass a choice through."""
        if isinstance(value, Choice):
            return value
        if isinstance(value, str):
            value = {"kind": value}
        kind = kind_of(value, self.table)
        try:
            cls = resolve(kind, self.table, path="kind")
        except ConfigError as error:
            raise problem(str(error)) from None
        if kind not in self.table:
            # A user's own class is named by its path; its config need not repeat it.
            value = {key: given for key, given in value.items() if key != "kind"}
        return Choice(kind, cls, cls.Config.model_validate(value))


class OneOf:
    """Annotation that reads `{kind: name, ...}` as the config class so named.

    Unlike pydantic's tagged union it puts no tag into the location of an error.

    Args:
        classes: Config classes, each with a `kind` of its own.
        default: The kind of a mapping that names none; without one, that is refused.
    """

    def __init__(self, *classes: type[Config], default: str | None = None) -> None:
        self.default = default
        self.classes = {get_args(cls.model_fields["kind"].annotation)[0]: cls for cls in classes}

    def __get_pydantic_core_schema__(
        self, source: Any, handler: GetCoreSchemaHandler
    ) -> CoreSchema:
        """Validate through the named class."""
        return core_schema.no_info_plain_validator_function(
            self.validate,
            serialization=core_schema.plain_serializer_function_ser_schema(Config.to_dict),
        )

    def __get_pydantic_json_schema__(
        self, schema: CoreSchema, handler: GetJsonSchemaHandler
    ) -> dict[str, Any]:
        """Describe every class, for editors."""
        known = [_with_kind(inlined_json_schema(cls)) for cls in self.classes.values()]
        return {"anyOf": [*known, {"enum": sorted(self.classes)}]}

    def validate(self, value: Any) -> Config:
        """Read a mapping with `kind` (or a bare name), or pass a config through."""
        if isinstance(value, tuple(self.classes.values())):
            return cast("Config", value)
        if isinstance(value, str):
            value = {"kind": value}
        if self.default is not None and isinstance(value, dict):
            value = {"kind": self.default, **value}
        kind = kind_of(value, self.classes)
        if kind not in self.classes:
            hint = did_you_mean(kind, self.classes)
            raise problem(f"kind must be one of {', '.join(self.classes)}. Got {kind!r}.{hint}")
        return self.classes[kind].model_validate(value)


def kind_of(value: Any, known: Mapping[str, Any]) -> str:
    """Give the `kind` of a mapping.

    Raises:
        PydanticCustomError: `value` is no mapping, or has no `kind` that is a text.
    """
    if not isinstance(value, dict):
        raise problem(f"must be a mapping with `kind`. Got {value!r}.")
    kind = value.get("kind")
    if not isinstance(kind, str):
        raise problem(f"`kind` is missing. Known: {', '.join(sorted(known))}.")
    return kind


def _with_kind(schema: dict[str, Any]) -> dict[str, Any]:
    # A config alone knows its kind; a mapping in a file must say it.
    return {**schema, "required": [*schema.get("required", ()), "kind"]}


def inlined_json_schema(config: type[Config]) -> dict[str, Any]:
    """Give a config's JSON Schema with its own definitions put in their places."""
    schema = config.model_json_schema()
    definitions = schema.pop("$defs", {})

    def replace(node: Any) -> Any:
        if isinstance(node, dict):
            if "$ref" in node:
                return replace(definitions[node["$ref"].rpartition("/")[2]])
            return {key: replace(value) for key, value in node.items()}
        return [replace(item) for item in node] if isinstance(node, list) else node

    inlined: dict[str, Any] = replace(schema)
    return inlined
