"""Each verb of the command, on a small log; in real processes where a process matters."""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml
from tests.integration.small import (
    ROW_COLUMNS,
    command,
    run_rankloom,
    small_train,
    small_values,
    write_run_file,
)
from tests.unit.api.test_run import conforms

from rankloom.interaction import INTERACTIONS

RECIPES = Path(__file__).parents[2] / "recipes"
SMALL = [
    *("--set", "training.epochs=1"),
    *("--set", "training.batch_size=4096"),
    *("--set", "training.early_stopping=null"),
    *("--set", "model.tokenization.token_dim=12"),
    *("--set", "model.head.hidden_dims=[4]"),
    *("--set", "evaluation.num_resamples=0"),
]
"""Small sizes for a recipe."""
NO_NETWORK = {
    "PIP_CONFIG_FILE": "/dev/null",
    "PIP_INDEX_URL": "http://127.0.0.1:9/simple",
    "PIP_EXTRA_INDEX_URL": "",
    "PIP_FIND_LINKS": "",
    "PIP_NO_INDEX": "0",
    "https_proxy": "http://127.0.0.1:9",
    "HTTPS_PROXY": "http://127.0.0.1:9",
}

OWN_FILE = '''"""An interaction of one's own.

Paper: nobody, "A Mixer of One's Own", nowhere 2026, arXiv:0000.00000.
Layer: y = relu(W x + b) over the concatenated features.
Differs from the paper: nothing.
Cost: D * W + W parameters; D * W multiply-adds per row.
Shapes: B rows, D width of the concatenated features, W hidden width.
"""

from typing import NamedTuple

from torch import Tensor, nn

import rankloom
from rankloom.layers.linear import linear


class MixerConfig(rankloom.Config):
    """Hyper-parameters of `Mixer`."""

    width: int = 32
    """Hidden width."""


class MixerState(NamedTuple):
    x: Tensor


class _Layer(nn.Module):
    def __init__(self, in_dim, out_dim, generator):
        super().__init__()
        self.hidden = linear(in_dim, out_dim, generator=generator)

    def forward(self, state):
        return MixerState(self.hidden(state.x).relu())


class Mixer(nn.Module):
    Config = MixerConfig
    takes = "flat"
    candidates = "independent"

    def __init__(self, config, layout, *, generator):
        super().__init__()
        self.in_dim, self.out_dim = layout.tokens.dim, config.width
        self.layers = nn.ModuleList([_Layer(self.in_dim, self.out_dim, generator)])
        self.auxiliary_after = ()

    def cost_letters(self):
        return {"D": self.in_dim, "W": self.out_dim}

    def embed_in(self, tokens):
        return MixerState(tokens)

    def features(self, state):
        return state.x[:, None]

    def readout(self, state):
        return state.x
'''


@pytest.fixture
def run_file(log: Path, tmp_path: Path) -> Path:
    return write_run_file(tmp_path / "small.yaml", small_values(log))


def output_of(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], *arguments: str | Path
) -> str:
    capsys.readouterr()
    assert command(monkeypatch, *arguments) == 0
    captured = capsys.readouterr()
    assert captured.err == ""
    return captured.out


def test_help_names_every_verb() -> None:
    done = run_rankloom("--help", cwd=Path.cwd())
    assert (done.returncode, done.stderr) == (0, "")
    verbs = ("quickstart", "data", "train", "evaluate", "predict", "describe", "check", "models")
    for verb in verbs:
        assert f" {verb} " in done.stdout


def test_models_are_listed_with_their_papers(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    lines = output_of(monkeypatch, capsys, "models").splitlines()
    for name, spec in INTERACTIONS.items():
        (line,) = [line for line in lines if line.split()[0] == name]
        assert str(spec.paper) in line
        assert line.endswith(spec.title)


def test_data_are_listed(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    text = output_of(monkeypatch, capsys, "data", "list")
    names = [line for line in text.splitlines() if not line.startswith(" ")]
    assert names == [
        "ali_ccp", "amazon", "avazu", "census", "criteo", "ebnerd",
        "frappe", "kuairand", "movielens", "s3rec", "synthetic", "taobao_ad",
    ]  # fmt: skip
    for part in ("\n  source: ", "\n  terms: "):
        assert text.count(part) == len(names)


def test_data_are_prepared(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    text = output_of(monkeypatch, capsys, "data", "prepare", "synthetic", "--split", "global_time")
    assert "cold share" in text
    rows = [pq.read_metadata(f"data/synthetic/{s}/part-0.parquet").num_rows for s in ("train",)]
    assert f"prepared  data/synthetic  train {rows[0]:,}  valid " in text


def test_the_json_schema_accepts_every_recipe(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    schema = json.loads(output_of(monkeypatch, capsys, "describe", "--json-schema"))
    assert schema["$schema"].startswith("https://json-schema.org/")
    recipes = sorted(RECIPES.glob("*.yaml"))
    assert recipes
    for path in recipes:
        values = yaml.safe_load(path.read_text())
        assert conforms(values, schema, schema), path
        assert not conforms({**values, "trainning": {}}, schema, schema), path


def test_a_run_from_its_file_to_its_scores(
    log: Path,
    run_file: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    trained = run_rankloom("train", run_file, cwd=tmp_path)
    assert (trained.returncode, trained.stderr) == (0, "")
    lines = trained.stdout.splitlines()
    assert lines[0].startswith("fitted    3 vocabularies of ")
    assert lines[1].startswith("model     mlp  flat D=")
    assert lines[1].count(" dense + ") == 1
    assert lines[2].startswith("epoch 1/2  ")
    assert [line.split()[0] for line in lines if line.startswith(("valid", "test"))] == (
        ["valid"] * 4 + ["test"] * 2
    )
    assert lines[-1] == "run       runs/small          report  runs/small/report.html"
    monkeypatch.chdir(tmp_path)
    folder = Path("runs", "small")
    assert (folder / "report.html").stat().st_size > 10_000

    described = output_of(monkeypatch, capsys, "describe", folder)
    assert described.splitlines()[0] == lines[1]
    for part in ("embedder", "sequence history", "interaction", "head"):
        assert f"\n{part} " in described
    for table in ("user", "item"):
        assert f"\n{table} " in described

    described = output_of(monkeypatch, capsys, "describe", folder, "--candidates", "50")
    assert "one request of 50 candidates, hoisted" in described
    tables = [line.split()[0] for line in described.splitlines() if line.endswith("candidates")]
    assert tables == ["FLOPs", "bytes"]
    assert "hoisting saves " in described

    evaluated = output_of(monkeypatch, capsys, "evaluate", folder, "--split", "valid")
    assert evaluated.splitlines()[0] in lines
    assert json.loads((folder / "evaluation.json").read_text()).keys() == {"test", "valid"}

    source = log / "test" / "part-0.parquet"
    scored = run_rankloom("predict", folder, source, "--to", "scored.parquet", cwd=tmp_path)
    assert (scored.returncode, scored.stderr) == (0, "")
    rows, scores = pq.read_table(source), pq.read_table("scored.parquet")
    assert scored.stdout == f"scored    {len(rows)} lines  scored.parquet\n"
    assert scores["item_id"] == rows["item_id"]
    assert 0 < min(scores["like"].to_pylist()) < max(scores["like"].to_pylist()) < 1


def test_describing_a_run_file_fits_it(
    run_file: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    text = output_of(
        monkeypatch, capsys, "describe", run_file, "--set", "model.interaction.hidden_dims=[6]"
    )
    assert text.startswith("model     mlp  flat D=")
    assert sorted(path.name for path in run_file.parent.iterdir()) == ["small.yaml"]


@pytest.mark.usefixtures("without_extras")
def test_grouped_scores_are_the_flat_ones(
    log: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    scores = {}
    for layout, source in (("flat", log), ("grouped", log / "grouped")):
        values = small_values(log, layout=layout)
        run = tmp_path / layout
        small_train(values, run, {"training.epochs": 1})
        if layout == "grouped":
            # The same weights, reached by the flat log.
            for name in ("checkpoints", "transforms"):
                shutil.rmtree(run / name)
                shutil.copytree(tmp_path / "flat" / name, run / name)
        to = tmp_path / f"{layout}.parquet"
        # What is scored needs no labels.
        rows = pq.read_table(source / "test" / "part-0.parquet").drop_columns(["rating"])
        given = tmp_path / f"{layout}-rows.parquet"
        pq.write_table(rows, given)
        output_of(monkeypatch, capsys, "predict", run, given, "--to", to, "--columns", "request_id")
        scores[layout] = pq.read_table(to)
    grouped = scores["grouped"]
    assert grouped.column_names == scores["flat"].column_names == ["request_id", "like", "love"]
    lengths = [len(one) for one in grouped["like"].to_pylist()]
    assert lengths == [len(one) for one in rows[ROW_COLUMNS[0]].to_pylist()]
    assert max(lengths) > 1
    for task in ("like", "love"):
        flat = scores["flat"][task].to_pylist()
        assert pa.chunked_array(grouped[task]).combine_chunks().flatten().to_pylist() == (
            pytest.approx(flat, abs=1e-6)
        )


def test_an_architecture_of_ones_own(
    run_file: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """A file in the current folder trains, is found again, and passes the contract."""
    (tmp_path / "mymodule.py").write_text(OWN_FILE)
    choice = "model.interaction={kind: 'mymodule:Mixer', width: 8}"
    one = ["--set", "training.epochs=1", "--to", "own"]
    trained = run_rankloom("train", run_file, "--set", choice, *one, cwd=tmp_path)
    assert (trained.returncode, trained.stderr) == (0, "")
    assert "model     mymodule:Mixer  flat D=" in trained.stdout
    monkeypatch.chdir(tmp_path)
    try:
        assert "mymodule:Mixer" in output_of(monkeypatch, capsys, "describe", "own")
    finally:
        sys.modules.pop("mymodule", None)
    checked = run_rankloom("check", "mymodule:Mixer", "--set", "width=16", cwd=tmp_path)
    assert "FAIL" not in checked.stdout
    assert (checked.returncode, checked.stderr) == (0, "")
    assert checked.stdout.count("ok  ") >= 8


def test_a_broken_architecture_fails_its_check(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    leaky = OWN_FILE.replace("return state.x\n", "return state.x - state.x.mean(dim=0)\n")
    (tmp_path / "leaky_module.py").write_text(leaky)
    monkeypatch.chdir(tmp_path)
    try:
        assert command(monkeypatch, "check", "leaky_module:Mixer") == 1
    finally:
        sys.modules.pop("leaky_module", None)
    captured = capsys.readouterr()
    assert "FAIL" in captured.out
    assert "assertions failed" in captured.err


@pytest.mark.usefixtures("without_extras")
def test_quickstart(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    arguments = ("quickstart", "--data", "synthetic", *SMALL)
    text = output_of(monkeypatch, capsys, *arguments)
    run = tmp_path / "runs" / "quickstart"
    assert f"scored    {pq.read_metadata(run / 'scored.parquet').num_rows:,} rows" in text
    assert text.splitlines()[-1].startswith("next      rankloom export runs/quickstart ")
    first = (run / "metrics.jsonl").read_text()
    # Once more: the earlier one is replaced.
    output_of(monkeypatch, capsys, *arguments)
    assert len((run / "metrics.jsonl").read_text().splitlines()) == len(first.splitlines())


def test_quickstart_leaves_other_folders_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "mine.csv").write_text("x")
    (tmp_path / "notes.txt").write_text("x")
    monkeypatch.chdir(tmp_path)
    assert command(monkeypatch, "quickstart", "--data", "synthetic", "--to", ".") == 2
    assert "holds something else than a quickstart" in capsys.readouterr().err
    assert (tmp_path / "data" / "mine.csv").read_text() == "x"


def test_quickstart_finds_a_mistake_before_it_fetches(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    to = tmp_path / "quick"
    wrong = ("--set", "training.epoch=1")
    assert command(monkeypatch, "quickstart", "--data", "synthetic", "--to", to, *wrong) == 2
    assert "Did you mean 'epochs'?" in capsys.readouterr().err
    assert not to.exists()


def test_quickstart_without_network(tmp_path: Path) -> None:
    done = run_rankloom(
        "quickstart",
        cwd=tmp_path,
        HOME=str(tmp_path / "home"),
        XDG_CACHE_HOME=str(tmp_path / "cache"),
        RANKLOOM_DATA=str(tmp_path / "nothing"),
        **NO_NETWORK,
    )
    assert done.returncode == 2
    (line,) = done.stderr.splitlines()
    assert line.startswith("MovieLens-100K: no source can be reached. Got ")
    assert "pip: " in line
    assert "files.grouplens.org: " in line
    assert line.endswith("or take --data synthetic, which needs none.")
    assert not (tmp_path / "runs").exists()
