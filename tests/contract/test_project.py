"""What holds for the project as a whole."""

from __future__ import annotations

import ast
import importlib
import inspect
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

import rankloom
from rankloom import api
from rankloom.contract import Subject
from rankloom.contract.subject import SLOTS
from rankloom.data.sample import sample_batch
from rankloom.data.statistics import Moments, Quantiles
from rankloom.losses import Loss
from rankloom.models import build_model
from rankloom.schema import QuantileEncoding

ROOT = Path(__file__).resolve().parents[2]
SOURCES = sorted((ROOT / "src").rglob("*.py"))
RECIPES = sorted((ROOT / "recipes").glob("*.yaml"))
SPECS = [(slot, name, spec) for slot, table in SLOTS.items() for name, spec in table.items()]
MAX_LINES = 450


@pytest.mark.parametrize(("slot", "name", "spec"), SPECS, ids=[name for _, name, _ in SPECS])
def test_architecture_file_begins_with_the_five_lines(slot, name, spec) -> None:
    module = importlib.import_module(spec.target.partition(":")[0])
    header = inspect.getdoc(module) or ""
    lines = [line.partition(":")[0] for line in header.splitlines() if ":" in line]
    for wanted in ("Paper", "Differs from the paper", "Cost", "Shapes"):
        assert wanted in lines, f"{module.__name__} has no line {wanted}:"
    assert {"Layer", "Model"} & set(lines)
    assert spec.paper is None or spec.paper in header


@pytest.mark.parametrize(("slot", "name", "spec"), SPECS, ids=[name for _, name, _ in SPECS])
def test_every_config_field_is_documented(slot, name, spec) -> None:
    fields = type(Subject.of(name).choice.config).model_fields
    assert [field for field, info in fields.items() if not info.description] == []


def test_every_field_of_every_config_is_documented() -> None:
    for path in SOURCES:
        # Kernels import Triton, which is not everywhere, and have no configs.
        if path.name != "main.py" and path.parent.name != "kernels":
            name = ".".join(path.relative_to(ROOT / "src").with_suffix("").parts)
            importlib.import_module(name.removesuffix(".__init__"))

    def below(config):
        for one in config.__subclasses__():
            yield one
            yield from below(one)

    undocumented = [
        f"{config.__name__}.{name}"
        for config in below(rankloom.Config)
        if config.__module__.startswith("rankloom.")
        for name, info in config.model_fields.items()
        if not info.description
    ]
    assert undocumented == []


def test_files_are_short() -> None:
    long = {str(p.relative_to(ROOT)): len(p.read_text().splitlines()) for p in SOURCES}
    assert {path: lines for path, lines in long.items() if lines > MAX_LINES} == {}


def test_sources_are_ascii() -> None:
    assert [p.name for p in SOURCES if not p.read_text(encoding="utf-8").isascii()] == []


def test_nothing_reads_pickles_or_evaluates() -> None:
    forbidden = {"eval", "exec", "torch.load", "pickle.load", "pickle.loads", "yaml.unsafe_load"}
    found = [
        f"{path.name}:{node.lineno}"
        for path in SOURCES
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Call) and ast.unparse(node.func) in forbidden
    ]
    assert found == []


def test_exports_are_sorted_and_exist() -> None:
    assert sorted(rankloom.__all__) == rankloom.__all__
    assert [name for name in rankloom.__all__ if not hasattr(rankloom, name)] == []


def test_importing_is_quick_and_pulls_in_no_torch() -> None:
    code = (
        "import sys, rankloom, rankloom.data;print(sorted({'torch', 'pyarrow'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_schema_and_config_need_no_torch() -> None:
    code = "import sys, rankloom.schema, rankloom.config; print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"


@pytest.mark.parametrize("path", RECIPES, ids=[path.stem for path in RECIPES])
def test_recipe_builds_and_steps(path: Path, generator) -> None:
    run = api.load_run(path)
    sizes = {name: source.num_embeddings or 50 for name, source in run.schema.tables().items()}
    statistics = {
        name: Quantiles((0.0, 1.0))
        if isinstance(feature.encode, QuantileEncoding)
        else Moments(0.0, 1.0)
        for name, feature in run.schema.dense.items()
    }
    model = build_model(run.config.model, run.schema, table_sizes=sizes, statistics=statistics)
    batch = sample_batch(run.schema, sizes, rows_of_request=(1,) * 8, generator=generator)
    output = model.network(model.embedder(batch).inputs)
    losses = Loss(run.schema, auxiliary_weights=model.network.auxiliary_weights)(output, batch)
    losses.total.backward()
    assert losses.total.isfinite()


def test_quickstart_is_the_movielens_recipe() -> None:
    one, other = (
        yaml.safe_load(p.read_text())
        for p in (
            ROOT / "src/rankloom/cli/quickstart.yaml",
            ROOT / "recipes/movielens_tokenmixer_large.yaml",
        )
    )
    assert one == other
