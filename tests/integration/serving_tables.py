"""The tables of docs/serving.md that are made from the code.

`python -m tests.integration.serving_tables` writes them anew.
"""

from __future__ import annotations

import json
import typing
from collections.abc import Iterator
from pathlib import Path

from pydantic import BaseModel

from rankloom.serving.config import ServeConfig
from rankloom.serving.telemetry.families import FAMILIES

DOCUMENT = Path(__file__).parents[2] / "docs" / "serving.md"


def options() -> str:
    """Give a table of every option, with its default and its documentation."""
    return _table(("option", "default", "what"), _option_rows(ServeConfig, ""))


def metrics() -> str:
    """Give a table of every metric."""
    rows = (
        (f"`{one.name}`", one.kind, " ".join(f"`{label}`" for label in one.labels), one.text)
        for one in FAMILIES.values()
    )
    return _table(("metric", "kind", "labels", "what"), rows)


TABLES = {"metrics": metrics, "options": options}


def in_marks(name: str, table: str) -> str:
    """Put a table between the marks that it has in the document."""
    return f"<!-- {name} -->\n{table}<!-- end of {name} -->"


def _option_rows(config: type[BaseModel], path: str) -> Iterator[tuple[str, str, str]]:
    for name, field in config.model_fields.items():
        where = f"{path}{name}"
        assert field.description is not None, where
        inner = _config_in(field.annotation)
        if inner is None:
            default = "required" if field.is_required() else _shown(field.default)
            yield f"`{where}`", default, field.description + _choices(field.annotation)
            continue
        is_optional = field.default is None
        yield f"`{where}`", "`null`" if is_optional else "", f"**{field.description}**"
        yield from _option_rows(inner, f"{where}.")


def _config_in(annotation: object) -> type[BaseModel] | None:
    found = (annotation, *typing.get_args(annotation))
    return next((o for o in found if isinstance(o, type) and issubclass(o, BaseModel)), None)


def _choices(annotation: object) -> str:
    """List what may be given, where only some words may."""
    if typing.get_origin(annotation) is not typing.Literal:
        return ""
    return f" One of {', '.join(f'`{one}`' for one in typing.get_args(annotation))}."


def _shown(default: object) -> str:
    return f"`{default if isinstance(default, str) else json.dumps(default)}`"


def _table(head: tuple[str, ...], rows: Iterator[tuple[str, ...]]) -> str:
    cells = [head, ("---",) * len(head), *rows]
    lines = (
        " | ".join(" ".join(cell.replace("|", r"\|").split()) for cell in row) for row in cells
    )
    return "".join(f"| {line} |\n" for line in lines)


def main() -> None:
    """Write the tables anew."""
    text = DOCUMENT.read_text(encoding="utf-8")
    for name, table in TABLES.items():
        start, end = text.index(f"<!-- {name} -->"), text.index(f"<!-- end of {name} -->")
        text = text[:start] + in_marks(name, table()) + text[end + len(f"<!-- end of {name} -->") :]
    DOCUMENT.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
