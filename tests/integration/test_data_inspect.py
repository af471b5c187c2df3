"""`rankloom data inspect`: each finding planted and found, clean logs, drafts that train."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
import yaml
from tests.integration.failing_commands import is_clear
from tests.integration.small import command, small_values, write_run_file

import rankloom
from rankloom.data.simulate import load_simulation, simulate

Table = pa.Table
Inspect = Callable[..., dict[str, Any]]
SMALL_TRAINING = ["training.epochs=1", "evaluation.num_resamples=0"]


@pytest.fixture
def inspect(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Inspect:
    """Give a function that runs the command and reads its JSON."""

    def run(*arguments: str | Path, code: int = 0) -> dict[str, Any]:
        capsys.readouterr()
        assert command(monkeypatch, "data", "inspect", *arguments, "--json") == code
        found: dict[str, Any] = json.loads(capsys.readouterr().out)
        return found

    return run


@pytest.fixture
def train_table(log: Path) -> Table:
    return pq.read_table(log / "train" / "part-0.parquet")


def written(table: Table, path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(table, path)
    return path


def checks(found: dict[str, Any], severity: str | None = None) -> dict[str, str]:
    """Give where each check found something."""
    return {
        one["check"]: one["where"]
        for one in found["findings"]
        if severity in {None, one["severity"]}
    }


def with_lists(table: Table, change: Callable[[np.ndarray], np.ndarray], name: str) -> Table:
    """Change the values of a list column and keep the lists."""
    column = table[name].combine_chunks()
    values = change(column.flatten().to_numpy(zero_copy_only=False))
    changed = pa.ListArray.from_arrays(column.offsets, pa.array(values))
    return table.set_column(table.column_names.index(name), name, changed)


def click_of(table: Table) -> np.ndarray:
    return (table["rating"].to_numpy() >= 4).astype(np.int64)


# Clean logs


@pytest.mark.parametrize("layout", ["flat", "grouped"])
def test_a_clean_log_has_no_error(layout: str, log: Path, inspect: Inspect) -> None:
    folder = log if layout == "flat" else log / "grouped"
    train, test = folder / "train/*.parquet", folder / "test/*.parquet"
    found = inspect(train, "--test", test, "--strict")
    assert checks(found, "error") == {}
    # The generator draws with replacement: a few rows are there twice indeed.
    assert checks(found, "warning") == {"duplicate_rows": "rows"}
    assert found["layout"] == layout
    sides = {name: one["side"]["side"] for name, one in found["columns"].items() if "side" in one}
    assert {sides[name] for name in ("age", "gender", "occupation", "zip_code")} == {"user"}
    assert {sides[name] for name in ("hour", "weekday")} == {"context"}
    assert {sides[name] for name in ("item_id", "release_year", "genres")} == {"item"}


def test_a_clean_log_fits_its_run_file(log: Path, inspect: Inspect, tmp_path: Path) -> None:
    run = write_run_file(tmp_path / "run.yaml", small_values(log))
    assert checks(inspect(log / "train/*.parquet", "--run", run), "error") == {}


def test_a_simulated_log_is_clean_and_its_oracles_are_no_features(
    tmp_path: Path, inspect: Inspect
) -> None:
    sizes = {"rows.train": 4000, "rows.valid": 500, "rows.test": 1500, "users.count": 200}
    values = {**sizes, "items.count": 300, "layout": "grouped"}
    to = tmp_path / "simulated"
    simulate(load_simulation(overrides=values), to)
    train, test = to / "train/*.parquet", to / "test/*.parquet"
    found = inspect(train, "--test", test, "--strict")
    oracles = {name for name, one in found["columns"].items() if one["kind"] == "oracle"}
    assert "oracle_click" in oracles
    assert not oracles & found["draft"]["schema"].keys()
    assert {"click", "buy"} <= found["tasks"].keys()


# Drafts


@pytest.mark.usefixtures("without_extras")
@pytest.mark.parametrize("layout", ["flat", "grouped"])
def test_a_draft_loads_and_trains_as_it_is(
    layout: str, log: Path, inspect: Inspect, tmp_path: Path
) -> None:
    folder = log if layout == "flat" else log / "grouped"
    to = tmp_path / "draft.yaml"
    test = folder / "test/*.parquet"
    found = inspect(folder / "train/*.parquet", "--test", test, "--to", to)
    assert yaml.safe_load(to.read_text()) == found["draft"]
    run = rankloom.load_run(to, SMALL_TRAINING)
    assert run.config.data.layout == layout
    assert run.schema.sequences["history"].time == "history_time"
    assert "names the user" in to.read_text()
    result = rankloom.train(run, tmp_path / "run", printer=lambda _: None)
    metrics = rankloom.evaluate(result, "test").to_dict()
    assert "rating" in json.dumps(metrics)


@pytest.mark.usefixtures("without_extras")
def test_a_draft_of_a_broken_log_trains_all_the_same(
    train_table: Table, inspect: Inspect, tmp_path: Path
) -> None:
    number = np.arange(len(train_table))
    table = with_lists(train_table, lambda times: times[::-1].copy(), "history_time")
    table = table.append_column("maybe", pa.array(number * 1.0, mask=number % 3 == 0))
    table = table.append_column("nothing", pa.nulls(len(table), pa.string()))
    table = table.append_column("huge", pa.array(np.where(number == 3, np.inf, 1.0)))
    table = table.append_column("click_time", pa.array(number, mask=click_of(table) == 0))
    table = table.append_column("click", pa.array(click_of(table), mask=number % 50 == 0))
    path, to = written(table, tmp_path / "log.parquet"), tmp_path / "draft.yaml"
    found = inspect(path, "--to", to)
    assert {"history_unsorted", "infinite"} <= checks(found, "error").keys()
    run = rankloom.load_run(to, SMALL_TRAINING)
    assert not {"huge", "nothing", "click_time"} & run.schema.features.keys()
    rankloom.train(run, tmp_path / "run", printer=lambda _: None)


def test_a_draft_never_replaces_a_file(
    log: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    to = tmp_path / "draft.yaml"
    to.write_text("mine")
    arguments = ("data", "inspect", log / "train/*.parquet", "--to", to)
    assert command(monkeypatch, *arguments) == 2
    assert "is there already" in capsys.readouterr().err
    assert to.read_text() == "mine"


# Findings, each planted


def leak(table: Table) -> Table:
    return table.append_column("dwell_score", pa.array(click_of(table) * 3.5))


def null_leak(table: Table) -> Table:
    values = pa.array(np.arange(len(table)) * 1.5, mask=click_of(table) == 0)
    return table.append_column("payment", values)


def outcome(table: Table) -> Table:
    return table.append_column("conversion_time", table["timestamp"])


def late_history(table: Table) -> Table:
    return with_lists(table, lambda times: times + 3600, "history_time")


def history_at_the_row(table: Table) -> Table:
    """Append the row's own second to each history."""
    times = zip(table["history_time"].to_pylist(), table["timestamp"].to_pylist(), strict=True)
    for name, lists in (
        ("history_time", [[*past, now] for past, now in times]),
        ("history_item_id", [[*past, "item_0"] for past in table["history_item_id"].to_pylist()]),
        ("history_rating", [[*past, 1] for past in table["history_rating"].to_pylist()]),
    ):
        table = table.set_column(table.column_names.index(name), name, pa.array(lists))
    return table


def unsorted_history(table: Table) -> Table:
    lists = [times[::-1] for times in table["history_time"].to_pylist()]
    return table.set_column(
        table.column_names.index("history_time"), "history_time", pa.array(lists)
    )


def unaligned_history(table: Table) -> Table:
    lists = table["history_rating"].to_pylist()
    lists[70] = [*lists[70], 3]
    return table.set_column(
        table.column_names.index("history_rating"), "history_rating", pa.array(lists)
    )


def null_times(table: Table) -> Table:
    lists = table["history_time"].to_pylist()
    at = next(place for place, times in enumerate(lists) if times)
    lists[at][-1] = None
    return table.set_column(
        table.column_names.index("history_time"), "history_time", pa.array(lists)
    )


def own_item(table: Table) -> Table:
    items = [[*past, item] for past, item in zip(
        table["history_item_id"].to_pylist(), table["item_id"].to_pylist(), strict=True
    )]  # fmt: skip
    table = table.drop_columns(["history_rating", "history_time", "history_first_event"])
    return table.set_column(
        table.column_names.index("history_item_id"), "history_item_id", pa.array(items)
    )


def own_item_of_clicks(table: Table) -> Table:
    click = (table["rating"].to_numpy() == 5).astype(np.int64)
    own = own_item(table)["history_item_id"].to_pylist()
    items = [past if hit else past[:-1] for past, hit in zip(own, click, strict=True)]
    table = own_item(table).drop_columns(["rating"]).append_column("click", pa.array(click))
    return table.set_column(
        table.column_names.index("history_item_id"), "history_item_id", pa.array(items)
    )


def constant(table: Table) -> Table:
    return table.append_column("app", pa.array(["a"] * len(table)))


def all_null(table: Table) -> Table:
    return table.append_column("income", pa.nulls(len(table), pa.float64()))


def infinite(table: Table) -> Table:
    prices = np.where(np.arange(len(table)) == 9, np.inf, 1.0)
    return table.append_column("price", pa.array(prices))


def duplicate_rows(table: Table) -> Table:
    return pa.concat_tables([table, table.slice(0, 40)])


def duplicate_events(table: Table) -> Table:
    other = table.slice(0, 40)
    ratings = pc.subtract(6, other["rating"])
    at = table.column_names.index("rating")
    return pa.concat_tables([table, other.set_column(at, "rating", ratings)])


def requests_apart(table: Table) -> Table:
    return table.take(pa.array(np.random.default_rng(0).permutation(len(table))))


def milliseconds(table: Table) -> Table:
    at = table.column_names.index("timestamp")
    table = table.set_column(at, "timestamp", pc.multiply(table["timestamp"], 1000))
    return with_lists(table, lambda times: times * 1000, "history_time")


def timestamps(table: Table) -> Table:
    at = table.column_names.index("timestamp")
    return table.set_column(at, "timestamp", table["timestamp"].cast(pa.timestamp("s")))


def mostly_null(table: Table) -> Table:
    values = pa.array(np.arange(len(table)), mask=np.arange(len(table)) % 20 != 0)
    return table.append_column("coupon", values)


PLANTED: list[tuple[Callable[[Table], Table], str, str, str]] = [
    (leak, "error", "leak", "dwell_score"),
    (null_leak, "error", "leak", "payment"),
    (outcome, "warning", "outcome_name", "conversion_time"),
    (late_history, "error", "history_late", "history_time"),
    (history_at_the_row, "error", "history_late", "history_time"),
    (unsorted_history, "error", "history_unsorted", "history_time"),
    (unaligned_history, "error", "unaligned", "history_rating"),
    (null_times, "error", "history_null_time", "history_time"),
    (own_item, "error", "history_own_item", "history_item_id"),
    (own_item_of_clicks, "error", "history_own_item", "history_item_id"),
    (constant, "warning", "constant", "app"),
    (all_null, "warning", "all_null", "income"),
    (infinite, "error", "infinite", "price"),
    (duplicate_rows, "warning", "duplicate_rows", "rows"),
    (duplicate_events, "note", "duplicate_events", "(user_id, item_id, timestamp)"),
    (requests_apart, "warning", "requests_apart", "request_id"),
    (milliseconds, "warning", "time_unit", "timestamp"),
    (timestamps, "warning", "time_type", "timestamp"),
    (mostly_null, "note", "mostly_null", "coupon"),
]


@pytest.mark.parametrize(
    ("plant", "severity", "check", "where"), PLANTED, ids=[one[0].__name__ for one in PLANTED]
)
def test_what_is_planted_is_found(
    plant: Callable[[Table], Table],
    severity: str,
    check: str,
    where: str,
    train_table: Table,
    inspect: Inspect,
    tmp_path: Path,
) -> None:
    path = written(plant(train_table), tmp_path / "log.parquet")
    found = inspect(path, "--strict", code=severity == "error")
    matching = [
        one
        for one in found["findings"]
        if (one["check"], one["where"], one["severity"]) == (check, where, severity)
    ]
    assert matching, found["findings"]
    assert check not in {"leak", "infinite"} or where not in found["draft"]["schema"]


def test_planted_findings_of_a_grouped_log(log: Path, inspect: Inspect, tmp_path: Path) -> None:
    table = pq.read_table(log / "grouped/train/part-0.parquet")
    ratings = table["rating"].to_pylist()
    leaks = [[rating * 2.0 for rating in one] for one in ratings]
    leaks[5] = [*leaks[5], 1.0]
    table = table.append_column("later", pa.array(leaks))
    table = pa.concat_tables([table, table.slice(0, 3)])
    path = written(table, tmp_path / "log.parquet")
    found = inspect(path, "--label", "rating >= 4")
    assert found["layout"] == "grouped"
    assert checks(found, "error") == {"leak": "later", "unaligned": "later"}
    assert checks(found, "warning")["duplicate_requests"] == "request_id"


def test_requests_without_candidates(log: Path, inspect: Inspect, tmp_path: Path) -> None:
    table = pq.read_table(log / "grouped/train/part-0.parquet").slice(0, 50)
    for name in ("item_id", "release_year", "genres", "rating"):
        lists = table[name].to_pylist()
        lists[9] = []
        at = table.column_names.index(name)
        table = table.set_column(at, name, pa.array(lists, table.schema.field(name).type))
    assert "empty_request" in checks(inspect(written(table, tmp_path / "log.parquet")), "note")


def test_a_log_against_its_run_file(
    train_table: Table, inspect: Inspect, log: Path, tmp_path: Path
) -> None:
    at = train_table.column_names.index("hour")
    hours = pc.add(train_table["hour"], 5)
    years = pa.array(np.arange(len(train_table)), mask=np.arange(len(train_table)) == 7)
    table = train_table.set_column(at, "hour", hours).drop_columns(["release_year", "genres"])
    table = table.append_column("release_year", years)
    values = small_values(log)
    schema = {name: dict(feature) for name, feature in values["schema"].items()}
    schema["zip_code"] = {"side": "user", "kind": "sparse", "hash_buckets": 10}
    schema["age"] = {"side": "user", "kind": "sparse", "num_embeddings": 99}
    run = write_run_file(tmp_path / "run.yaml", {**values, "schema": schema})
    path = written(table, tmp_path / "log.parquet")
    found = inspect(path, "--run", run, "--strict", code=1)
    places = {(one["check"], one["where"]) for one in found["findings"]}
    assert {
        ("id_outside", "schema.hour.num_embeddings"),
        ("null_without_default", "schema.release_year"),
        ("collisions", "schema.zip_code.hash_buckets"),
        ("schema", "genres"),
        ("schema", "age"),
    } <= places


def changed_test(log: Path, tmp_path: Path, change: Callable[[Table], Table]) -> Path:
    table = pq.read_table(log / "test/part-0.parquet")
    return written(change(table), tmp_path / "test.parquet")


def test_test_rows_that_training_has(log: Path, inspect: Inspect, tmp_path: Path) -> None:
    train = pq.read_table(log / "train/part-0.parquet")
    test = changed_test(log, tmp_path, lambda t: pa.concat_tables([t, train.slice(0, 30)]))
    found = inspect(log / "train/*.parquet", "--test", test)
    assert "shared_rows" in checks(found, "error")


def test_a_test_log_before_training(log: Path, inspect: Inspect) -> None:
    found = inspect(log / "test/*.parquet", "--test", log / "train/*.parquet")
    assert "test_before_train" in checks(found, "error")


def test_drift_new_ids_and_label_rates(log: Path, inspect: Inspect, tmp_path: Path) -> None:
    def change(table: Table) -> Table:
        user = pc.binary_join_element_wise(table["user_id"], "new", "-")
        for name, values in (
            ("user_id", user),
            ("hour", pa.array(np.zeros(len(table), np.int64))),
            ("rating", pa.array(np.full(len(table), 5))),
        ):
            table = table.set_column(table.column_names.index(name), name, values)
        return table

    found = inspect(log / "train/*.parquet", "--test", changed_test(log, tmp_path, change))
    where = {(one["check"], one["where"]) for one in found["findings"]}
    assert {("new_ids", "user_id"), ("drift", "hour"), ("label_drift", "rating")} <= where


def test_findings_read_as_errors_do_and_come_worst_first(
    train_table: Table,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    table = constant(leak(late_history(mostly_null(train_table))))
    assert command(monkeypatch, "data", "inspect", written(table, tmp_path / "log.parquet")) == 0
    lines = capsys.readouterr().out.splitlines()
    findings = lines[len(lines) - lines[::-1].index("") :]
    severities = [line.split()[0] for line in findings]
    assert severities == sorted(severities, key=["error", "warning", "note"].index)
    assert len(findings) >= 4
    for line in findings:
        assert is_clear(line[8:]), line


# Broken inputs


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda path: path.write_bytes(b"no parquet at all"), "is truncated or no Parquet file"),
        (lambda path: path.write_bytes(b""), "is empty (0 bytes)"),
        (lambda _: None, "no such file"),
        (lambda path: pq.write_table(pa.table({"a": pa.array([], pa.int64())}), path), "no rows"),
        (lambda path: pq.write_table(pa.table({}), path), "no rows"),
        (lambda path: path.mkdir(), "is a folder"),
    ],
    ids=["no parquet", "empty", "missing", "no rows", "no columns", "folder"],
)
def test_broken_inputs(
    make: Callable[[Path], Any],
    message: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    path = tmp_path / "log.parquet"
    make(path)
    assert command(monkeypatch, "data", "inspect", path) == 2
    error = capsys.readouterr().err.strip()
    assert message in error
    assert "Traceback" not in error


def test_a_truncated_row_group(
    log: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    content = bytearray((log / "train/part-0.parquet").read_bytes())
    content[100:9_000] = bytes(8_900)
    path = tmp_path / "log.parquet"
    path.write_bytes(bytes(content))
    assert command(monkeypatch, "data", "inspect", path) == 2
    assert "cannot be read" in capsys.readouterr().err


def test_no_label_and_to(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    path = written(pa.table({"x": [1.5, 2, 3]}), tmp_path / "log.parquet")
    to = tmp_path / "draft.yaml"
    assert command(monkeypatch, "data", "inspect", path, "--to", to) == 2
    captured = capsys.readouterr()
    assert "Name one with --label." in captured.err
    assert not to.exists()
