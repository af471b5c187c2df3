"""Public data sets, a file each, prepared into Parquet; a table of names, importing nothing."""

from __future__ import annotations

import importlib
import inspect
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rankloom.errors import ConfigError, did_you_mean

__all__ = ["DATASETS", "DatasetSpec", "PreparedDataset", "local_folder", "prepare_dataset"]


@dataclass(frozen=True, kw_only=True)
class DatasetSpec:
    """Where a data set is prepared, where it comes from and what one may do with it."""

    target: str
    """`module:function`; imported only when the data set is used. The function takes the folder to
    write to first and `report` (called with each line of progress) by name, and gives a
    `PreparedDataset`."""
    title: str
    """One line that says what it is."""
    source: str
    """Where the data come from."""
    terms: str
    """What its owners allow."""


@dataclass(frozen=True, kw_only=True)
class PreparedDataset:
    """What a data set's function has written."""

    name: str
    """Its name in `DATASETS`."""
    folder: Path
    """Holds one folder of Parquet files for each split."""
    rows: dict[str, int]
    """Number of rows by split."""
    notes: tuple[str, ...] = ()
    """Lines that a reader of a result must know, such as the share of cold users."""


DATASETS: dict[str, DatasetSpec] = {
    "census": DatasetSpec(
        target="rankloom.data.datasets.census:prepare_census",
        title="Census-Income (KDD): 299,285 people, two labels (income, never married)",
        source="UCI Machine Learning Repository, data set 117; from $RANKLOOM_DATA/census_income",
        terms="US government survey, by UCI under CC BY 4.0",
    ),
    "frappe": DatasetSpec(
        target="rankloom.data.datasets.frappe:prepare_frappe",
        title="Frappe_x1: 288,609 uses and non-uses of mobile apps with their context",
        source="huggingface.co/datasets/reczoo/Frappe_x1; from $RANKLOOM_DATA/frappe",
        terms="research only, no redistribution, no commercial use without permission",
    ),
    "movielens": DatasetSpec(
        target="rankloom.data.datasets.movielens:prepare_movielens",
        title="MovieLens-100K: 100,000 ratings of films with histories",
        source="GroupLens; fetched from the recbole wheel or files.grouplens.org",
        terms="research use, no redistribution, no commercial use without permission",
    ),
    "synthetic": DatasetSpec(
        target="rankloom.data.datasets.synthetic:prepare_synthetic",
        title="Generated ratings with a planted signal, in the form of MovieLens",
        source="made on this machine from a seed",
        terms="free",
    ),
}


def local_folder(name: str) -> Path | None:
    """Find the folder of that name in `$RANKLOOM_DATA` (`./data` if not set), or None."""
    folder = Path(os.environ.get("RANKLOOM_DATA") or "data") / name
    return folder if folder.is_dir() else None


def prepare_dataset(
    name: str, destination: Path, *, report: Callable[[str], None], **options: Any
) -> PreparedDataset:
    """Write a data set as Parquet: a folder for each split.

    Args:
        name: Of `DATASETS`.
        destination: Folder to write.
        report: Called with each line of progress.
        options: What the data set lets one choose, such as `split`.

    Raises:
        ConfigError: There is no such data set, or it has no such choice.
        DataError: Its source cannot be had, or is not what it should be.
    """
    if name not in DATASETS:
        raise ConfigError(
            f"data set: unknown name {name!r}.{did_you_mean(name, DATASETS)} "
            f"Known: {', '.join(sorted(DATASETS))}."
        )
    module, _, function = DATASETS[name].target.partition(":")
    prepare = getattr(importlib.import_module(module), function)
    known = inspect.signature(prepare).parameters
    unknown = [option for option in options if option not in known]
    if unknown:
        raise ConfigError(f"data set {name}: has no option {', '.join(unknown)}. Leave it out.")
    prepared: PreparedDataset = prepare(destination, report=report, **options)
    return prepared
