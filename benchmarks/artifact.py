"""The artifact: size, seconds to load, to the first score and of a later one; what verify refuses.

A run with vocabularies and histories on generated ratings is trained briefly and exported. Each
load happens in a new process, which imports nothing but `rankloom.load`. Then one file after the
other is damaged, each in a copy, and what `verify` says is noted.
"""

from __future__ import annotations

import json
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from statistics import median
from typing import Any

from benchmarks.harness import ROOT, Cell, Row, by_variant, run_module, spread

LOGS = ROOT / ".bench" / "artifact"
PARTS: dict[str, list[str]] = {"fp32": [], "quantized": ["tables", "user"]}
SETTINGS: dict[str, Any] = {
    "num_rows": 200_000,
    "num_users": 20_000,
    "num_items": 100_000,
    "embedding_dim": 64,
    "ways": list(PARTS),
    "repeats": 3,
}


def planned_cells(settings: Mapping[str, Any]) -> list[Cell]:
    """One cell for each way to export and repeat."""
    sizes = {k: settings[k] for k in ("num_rows", "num_users", "num_items", "embedding_dim")}
    return [
        Cell(way, repeat, sizes)
        for repeat in range(settings["repeats"])
        for way in settings["ways"]
    ]


def run_cell(cell: Cell) -> dict[str, Any]:
    """Train, export, load in new processes, damage."""
    from rankloom import api

    sizes = cell.options
    log = LOGS / f"{sizes['num_rows']}-{sizes['num_users']}-{sizes['num_items']}"
    if not log.exists():
        from rankloom.data.datasets.synthetic import prepare_synthetic

        counts = {key: sizes[key] for key in ("num_rows", "num_users", "num_items")}
        prepare_synthetic(log, **counts, report=lambda _: None)
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        run = api.load_run(_run_values(log, sizes["embedding_dim"], cell.repeat))
        result = api.train(run, folder / "run", printer=lambda _: None)
        began = time.perf_counter()
        exported = api.export(result, folder / "artifact", quantize=PARTS[cell.variant])
        export_s = time.perf_counter() - began
        loads = {
            name: run_module("artifact", "load", str(folder / "artifact"), check)
            for name, check in (("checked", "1"), ("unchecked", ""))
        }
        return {
            "num_bytes": {
                str(path.relative_to(folder / "artifact")): path.stat().st_size
                for path in sorted((folder / "artifact").rglob("*"))
                if path.is_file()
            },
            "mb": exported.num_bytes / 1e6,
            "export_s": export_s,
            "largest_error": max(exported.verification.largest_error.values()),
            "tolerance": exported.verification.tolerance,
            **{f"{key}_{name}": v for name, one in loads.items() for key, v in one.items()},
            "refusals": _refusals(folder),
        }


def summarise(rows: Sequence[Row]) -> dict[str, Any]:
    """Spreads by way of export; whether every damage was refused with one message."""
    keys = ("mb", "export_s", "load_s_checked", "load_s_unchecked", "first_score_s_checked")
    keys += ("score_s_checked", "import_s_checked")
    return {
        way: {
            **{key: spread(one[key] for one in group) for key in keys},
            "largest_error": max(one["largest_error"] for one in group),
            "all_damage_refused": all(
                text.startswith("ArtifactError")
                for one in group
                for text in one["refusals"].values()
            ),
        }
        for way, group in by_variant(rows).items()
    }


def _refusals(folder: Path) -> dict[str, str]:
    """Damage one file after the other and note what verify says."""
    from rankloom import verify
    from rankloom.errors import RankLoomError

    found = {}
    for name, damage in _DAMAGE.items():
        copy = folder / "damaged"
        shutil.copytree(folder / "artifact", copy)
        damage(copy)
        try:
            found[name] = f"verified: {verify(copy)}"
        except RankLoomError as error:
            found[name] = f"{type(error).__name__}: {error}".replace(str(folder), "")
        shutil.rmtree(copy)
    return found


def _flip(name: str) -> Callable[[Path], None]:
    def damage(folder: Path) -> None:
        content = bytearray((folder / name).read_bytes())
        content[len(content) // 2] ^= 1
        (folder / name).write_bytes(content)

    return damage


_DAMAGE: dict[str, Callable[[Path], None]] = {
    "weights": _flip("weights.safetensors"),
    "vocabularies": _flip("vocabularies.safetensors"),
    "manifest": _flip("manifest.json"),
    "program": _flip("programs/candidate.json"),
    "program missing": lambda folder: (folder / "programs/user.json").unlink(),
}


def _load(folder: str, check: bool) -> dict[str, float]:
    """Load an artifact and score its first golden request, in this new process."""
    began = time.perf_counter()
    import rankloom

    load = rankloom.load
    imported = time.perf_counter()
    ranker = load(folder, check=check)
    loaded = time.perf_counter()
    content = json.loads((Path(folder) / "golden.json").read_text())
    request = max(content["requests"], key=lambda one: len(next(iter(one["scores"].values()))))
    raw = (request["user"], request["candidates"], request["context"])
    start = time.perf_counter()
    ranker.score(*raw)
    first = time.perf_counter()
    times = []
    for _ in range(50):
        again = time.perf_counter()
        ranker.score(*raw)
        times.append(time.perf_counter() - again)
    return {
        "import_s": imported - began,
        "load_s": loaded - imported,
        "first_score_s": first - start,
        "score_s": median(times),
    }


def _run_values(log: Path, dim: int, seed: int) -> dict[str, Any]:
    return {
        "data": {split: str(log / split / "*.parquet") for split in ("train", "valid")},
        "schema": {
            "user_id": {"side": "user", "kind": "sparse", "vocabulary": {}},
            "occupation": {"side": "user", "kind": "sparse", "vocabulary": {}},
            "history": {
                "side": "user",
                "kind": "sequence",
                "columns": {"item_id": {"table": "item"}},
                "max_length": 50,
            },
            "item_id": {"side": "item", "kind": "sparse", "table": "item", "vocabulary": {}},
            "genres": {"side": "item", "kind": "sparse", "pooling": "mean", "vocabulary": {}},
        },
        "tasks": {"like": {"kind": "binary", "label": "rating >= 4"}},
        "model": {
            "embedding": {"embedding_dim": dim},
            "sequence": {"history": {"kind": "din"}},
            "interaction": {"kind": "mlp", "hidden_dims": [512, 256]},
        },
        "training": {"epochs": 1, "batch_size": 8192, "seed": seed},
        "evaluation": {"num_resamples": 0},
    }


if __name__ == "__main__":
    print(json.dumps(_load(sys.argv[2], bool(sys.argv[3]))))
