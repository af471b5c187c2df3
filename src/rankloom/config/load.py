"""Read a YAML run file and apply `--set path.to.key=value`."""

from __future__ import annotations

import re
from collections.abc import Hashable, Iterable, Mapping
from pathlib import Path
from typing import Any, TypeVar

import yaml
from pydantic import ValidationError

from rankloom.config.base import Config
from rankloom.config.problems import validation_problems
from rankloom.errors import ConfigError, join_problems

C = TypeVar("C", bound=Config)

MAX_BYTES = 4 * 2**20


class _Loader(yaml.SafeLoader):
    """Safe loader that refuses a key given twice, and reads `1e-3` as a number."""

    def __init__(self, stream: str) -> None:
        super().__init__(stream)
        # Without it an alias may stand within what it names, and no walk over the values ends.
        self.deep_construct = True

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:
        seen: set[object] = set()
        for key_node, _ in node.value:
            if key_node.tag == "tag:yaml.org,2002:merge":
                continue
            key = self.construct_object(key_node, deep=True)
            if not isinstance(key, Hashable):
                continue  # refused below, with its line
            if key in seen:
                line = key_node.start_mark.line + 1
                raise ConfigError(f"line {line}: key {key!r} is given twice. Remove one.")
            seen.add(key)
        return super().construct_mapping(node, deep)


# YAML 1.1 wants a dot and a signed exponent in a float, so that `1e-3` would be a text.
_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float",
    re.compile(r"^[-+]?(\d[\d_]*\.?[\d_]*|\.\d[\d_]*)[eE][-+]?\d+$"),
    list("-+0123456789."),
)


def parse_yaml(text: str, *, where: str) -> dict[str, Any]:
    """Parse a run file's text into plain values.

    Args:
        text: YAML of one mapping.
        where: Name of the source, for messages.

    Raises:
        ConfigError: The text is no YAML, no mapping, or gives a key twice.
    """
    if len(text) > MAX_BYTES:
        raise ConfigError(_too_large(where))
    values = _load(text, where=where)
    if not isinstance(values, dict) or not all(isinstance(key, str) for key in values):
        raise ConfigError(f"{where}: must be a mapping of names to values. Got {_kind(values)}.")
    return values


def read_yaml(path: Path) -> dict[str, Any]:
    """Read and parse a run file.

    Raises:
        ConfigError: The file cannot be read, or `parse_yaml` refuses its text.
    """
    try:
        if path.stat().st_size > MAX_BYTES:
            raise ConfigError(_too_large(str(path)))
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "is not UTF-8 text"
        raise ConfigError(f"{path}: cannot be read ({reason}). Give a YAML run file.") from None
    return parse_yaml(text, where=str(path))


def apply_overrides(
    values: Mapping[str, Any], overrides: Mapping[str, Any] | Iterable[str]
) -> dict[str, Any]:
    """Give a copy of `values` with some of them set by their path.

    A mapping is added to the mapping that is there, unless it names another `kind`: then it takes
    its place.

    Args:
        values: A run file's values.
        overrides: `{"training.epochs": 2}`, or texts `training.epochs=2` whose right side is YAML.

    Raises:
        ConfigError: A text has no `=`, or a path leads through something that is no mapping.
    """
    pairs = overrides.items() if isinstance(overrides, Mapping) else map(_parse_pair, overrides)
    result = _copy(values)
    for path, value in pairs:
        *parents, last = path.split(".")
        target = result
        for depth, name in enumerate(parents):
            if target.get(name) is None:
                target[name] = {}
            target = target[name]
            if not isinstance(target, dict):
                at = ".".join(parents[: depth + 1])
                raise ConfigError(f"--set {path}: {at} is {_kind(target)}, not a mapping.")
        if _is_extended(target.get(last), value):
            target[last] = {**target[last], **_copy(value)}
        else:
            target[last] = _copy(value) if isinstance(value, dict) else value
    return result


def load_config(
    kind: type[C],
    source: Path | None,
    overrides: Mapping[str, Any] | Iterable[str] = (),
    *,
    where: str,
) -> C:
    """Read and check a config that has defaults for everything.

    Args:
        kind: Of the config.
        source: A YAML file; without one, all defaults.
        overrides: `{"rows.train": 10_000}`, or texts `rows.train=10000`.
        where: What errors call it where there is no file.

    Raises:
        ConfigError: With every mistake at once.
    """
    values = apply_overrides({} if source is None else read_yaml(source), overrides)
    try:
        return kind.model_validate(values)
    except ValidationError as error:
        problems = validation_problems(error)
        raise ConfigError(join_problems(problems, where=str(source or where))) from None


def _is_extended(old: object, new: object) -> bool:
    if not (isinstance(old, dict) and isinstance(new, dict)):
        return False
    # The options of one architecture say nothing to another.
    return new.get("kind", old.get("kind")) == old.get("kind")


def _parse_pair(text: str) -> tuple[str, Any]:
    path, found, value = text.partition("=")
    if not found or not path.strip():
        raise ConfigError(f"--set {text}: must read path.to.key=value.")
    return path.strip(), _load(value, where=f"--set {text}")


def _load(text: str, *, where: str) -> Any:
    """Construct plain values of YAML; every way in which that fails is a `ConfigError`."""
    try:
        return yaml.load(text, Loader=_Loader)  # noqa: S506 (derives from SafeLoader)
    except ConfigError as error:
        raise ConfigError(f"{where}: {error}") from None
    except (yaml.YAMLError, RecursionError) as error:
        mark = getattr(error, "problem_mark", None)
        line = f" line {mark.line + 1}" if mark else ""
        problem = getattr(error, "problem", None) or type(error).__name__
        raise ConfigError(f"{where}{line}: is not YAML ({problem}). Mend the syntax.") from None
    except ValueError as error:
        # A date such as 2026-13-45, or a whole number of thousands of digits.
        raise ConfigError(f"{where}: a value cannot be read ({error}). Quote it.") from None


def _too_large(where: str) -> str:
    return f"{where}: is larger than {MAX_BYTES} bytes. A run file is a few pages."


def _copy(values: Mapping[str, Any]) -> dict[str, Any]:
    return {k: _copy(v) if isinstance(v, dict) else v for k, v in values.items()}


def _kind(value: object) -> str:
    names = {dict: "a mapping", list: "a list", str: "a text", type(None): "nothing"}
    return names.get(type(value), repr(value))
