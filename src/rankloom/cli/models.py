"""`rankloom models`: the tables of architectures, with their papers."""

from __future__ import annotations

import typer


def models() -> None:
    """List the architectures of every slot."""
    from rankloom.heads import HEADS
    from rankloom.interaction import INTERACTIONS
    from rankloom.sequence import SEQUENCES
    from rankloom.tokenization import TOKENIZATIONS

    slots = {
        "tokenization": TOKENIZATIONS,
        "sequence": SEQUENCES,
        "interaction": INTERACTIONS,
        "head": HEADS,
    }
    width = max(len(name) for table in slots.values() for name in table)
    papers = max(len(spec.paper or "-") for table in slots.values() for spec in table.values())
    for slot, table in slots.items():
        typer.echo(slot)
        for name, spec in table.items():
            typer.echo(f"  {name:{width}}  {spec.paper or '-':{papers}}  {spec.title}")
