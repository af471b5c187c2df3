"""Public data sets, a file each, prepared into Parquet; a table of names, importing nothing."""

from __future__ import annotations

import importlib
import inspect
import os
from collections.abc import Callable, Mapping
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
    "ali_ccp": DatasetSpec(
        target="rankloom.data.datasets.ali_ccp:prepare_ali_ccp",
        title="Ali-CCP: over 84 M rows of Taobao with click and purchase, grouped by request",
        source="tianchi.aliyun.com, data set 408; $RANKLOOM_DATA/ali_ccp, else a sample",
        terms="research; Tianchi's terms, after a login",
    ),
    "amazon": DatasetSpec(
        target="rankloom.data.datasets.amazon:prepare_amazon",
        title="Amazon reviews (2014, 2018 or 2023): products reviewed beside products drawn",
        source="amazon-reviews-2023.github.io or jmcauley.ucsd.edu/data/amazon; from "
        "$RANKLOOM_DATA/amazon; written from the published layouts, not tried on the real files",
        terms="no licence stated for the reviews; made public for research, with citation",
    ),
    "avazu": DatasetSpec(
        target="rankloom.data.datasets.avazu:prepare_avazu",
        title="Avazu: 40,428,967 ads on phones in ten days, clicked or not",
        source="kaggle.com/c/avazu-ctr-prediction; $RANKLOOM_DATA/avazu, else a sample",
        terms="Kaggle competition data: its rules, no redistribution",
    ),
    "census": DatasetSpec(
        target="rankloom.data.datasets.census:prepare_census",
        title="Census-Income (KDD): 299,285 people, two labels (income, never married)",
        source="UCI Machine Learning Repository, data set 117; from $RANKLOOM_DATA/census_income",
        terms="US government survey, by UCI under CC BY 4.0",
    ),
    "criteo": DatasetSpec(
        target="rankloom.data.datasets.criteo:prepare_criteo",
        title="Criteo Display Advertising Challenge: 45,840,617 ads, 13 counts, 26 categories",
        source="kaggle.com/c/criteo-display-ad-challenge; $RANKLOOM_DATA/criteo, else a sample",
        terms="Criteo's terms: research, no redistribution",
    ),
    "ebnerd": DatasetSpec(
        target="rankloom.data.datasets.ebnerd:prepare_ebnerd",
        title="EBNeRD: impressions of news articles with histories and read times, grouped",
        source="recsys.eb.dk; $RANKLOOM_DATA/ebnerd, else a sample",
        terms="research; terms of recsys.eb.dk, after a registration",
    ),
    "frappe": DatasetSpec(
        target="rankloom.data.datasets.frappe:prepare_frappe",
        title="Frappe_x1: 288,609 uses and non-uses of mobile apps with their context",
        source="huggingface.co/datasets/reczoo/Frappe_x1; from $RANKLOOM_DATA/frappe",
        terms="research only, no redistribution, no commercial use without permission",
    ),
    "kuairand": DatasetSpec(
        target="rankloom.data.datasets.kuairand:prepare_kuairand",
        title="KuaiRand (Pure, 1K or 27K): short videos, twelve kinds of feedback, 15 scenarios",
        source="kuairand.com; from $RANKLOOM_DATA/kuairand; written from the published layout, not "
        "tried on the real files",
        terms="CC BY-SA 4.0",
    ),
    "movielens": DatasetSpec(
        target="rankloom.data.datasets.movielens:prepare_movielens",
        title="MovieLens-100K: 100,000 ratings of films with histories",
        source="GroupLens; fetched from the recbole wheel or files.grouplens.org",
        terms="research use, no redistribution, no commercial use without permission",
    ),
    "s3rec": DatasetSpec(
        target="rankloom.data.datasets.s3rec:prepare_s3rec",
        title="S3-Rec's item sequences (Beauty, Sports and others), last items beside drawn ones",
        source="github.com/RUCAIBox/CIKM2020-S3Rec; from $RANKLOOM_DATA/s3rec_sequences",
        terms="no licence stated; derived from Amazon reviews, research use",
    ),
    "synthetic": DatasetSpec(
        target="rankloom.data.datasets.synthetic:prepare_synthetic",
        title="Generated ratings with a planted signal, in the form of MovieLens",
        source="made on this machine from a seed",
        terms="free",
    ),
    "taobao_ad": DatasetSpec(
        target="rankloom.data.datasets.taobao_ad:prepare_taobao_ad",
        title="Ali display advertising on Taobao: 26.6 M shown ads, 723 M events of behaviour",
        source="tianchi.aliyun.com/dataset/56; from $RANKLOOM_DATA/taobao_ad; written from the "
        "published layout, not tried on the real files",
        terms="research, no commercial use; the terms on Tianchi's page apply",
    ),
}


def local_folder(name: str) -> Path | None:
    """Find the folder of that name in `$RANKLOOM_DATA` (`./data` if not set), or None."""
    folder = Path(os.environ.get("RANKLOOM_DATA") or "data") / name
    return folder if folder.is_dir() else None


def prepare_dataset(
    name: str,
    destination: Path,
    options: Mapping[str, Any] | None = None,
    *,
    report: Callable[[str], None],
) -> PreparedDataset:
    """Write a data set as Parquet: a folder for each split.

    Args:
        name: Of `DATASETS`.
        destination: Folder to write.
        options: What the data set lets one choose, such as `split`.
        report: Called with each line of progress.

    Raises:
        ConfigError: There is no such data set, or it has no such choice, or that is of another
            type.
        DataError: Its source cannot be had, or is not what it should be.
    """
    if name not in DATASETS:
        raise ConfigError(
            f"data set: unknown name {name!r}.{did_you_mean(name, DATASETS)} "
            f"Known: {', '.join(sorted(DATASETS))}."
        )
    module, _, function = DATASETS[name].target.partition(":")
    prepare = getattr(importlib.import_module(module), function)
    known = {
        option: parameter.default
        for option, parameter in inspect.signature(prepare).parameters.items()
        if parameter.default is not inspect.Parameter.empty
    }
    options = options or {}
    unknown = [option for option in options if option not in known]
    if unknown:
        raise ConfigError(f"data set {name}: has no option {', '.join(unknown)}. Leave it out.")
    wrong = [
        f"{option} must be of type {kind.__name__}. Got {options[option]!r}."
        for option in options
        if type(options[option]) is not (kind := type(known[option]))
    ]
    if wrong:
        raise ConfigError(f"data set {name}: {' '.join(wrong)} Give values of these types.")
    prepared: PreparedDataset = prepare(destination, report=report, **options)
    return prepared
