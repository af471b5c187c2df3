"""Embedder: a batch -> looked-up vectors and encoded numbers, at R and at B rows."""

from rankloom.embedding.embedder import (
    MAIN_SET,
    Embedded,
    Embedder,
    EmbeddingConfig,
    set_key,
)
from rankloom.embedding.tables import FusedTables, Lookup, TableConfig

__all__ = [
    "MAIN_SET",
    "Embedded",
    "Embedder",
    "EmbeddingConfig",
    "FusedTables",
    "Lookup",
    "TableConfig",
    "set_key",
]
