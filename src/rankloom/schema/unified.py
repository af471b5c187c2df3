"""One table for many features: what the run file says of it."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, PositiveInt

from rankloom.config import Config
from rankloom.config.problems import either

UNIFIED = "unified"
"""Name of the one table."""

Lookups = Annotated[int, Field(ge=1, le=64)]


class UnifiedConfig(Config):
    """Keeps many tables in one: a hash, salted by the table's name, gives a value's rows.

    Coleman et al., "Unified Embedding: Battle-Tested Feature Representations for Web-Scale ML
    Systems", NeurIPS 2023, arXiv:2305.12102 (feature multiplexing). Nothing is fitted.
    """

    hash_buckets: PositiveInt
    """Rows that all values share; one more for each table is for its missing values."""
    tables: Annotated[
        Literal["all"] | tuple[str, ...], either("all or a list of names of tables")
    ] = "all"
    """Tables of ids that are kept in it, instead of what their features say of num_embeddings,
    vocabulary or hash_buckets. A feature's table has its name, unless it states another."""
    lookups: Annotated[
        Lookups | dict[str, Lookups], either("a number from 1 to 64, or one for each table named")
    ] = 1
    """Rows of a value, whose vectors stand side by side: of all tables, or table -> number (else
    1). A feature is then so many times embedding_dim wide."""

    def lookups_of(self, table: str) -> int | None:
        """Give the rows of a value of a table; none for a table that stands by itself."""
        if self.tables != "all" and table not in self.tables:
            return None
        return self.lookups if isinstance(self.lookups, int) else self.lookups.get(table, 1)

    @property
    def named(self) -> dict[str, tuple[str, ...]]:
        """Give the tables that each option names."""
        return {
            "tables": () if self.tables == "all" else self.tables,
            "lookups": () if isinstance(self.lookups, int) else tuple(self.lookups),
        }
