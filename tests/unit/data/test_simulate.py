"""The simulated log: what its columns promise, checked on the log itself."""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from rankloom.data.regroup import ungroup_log
from rankloom.data.simulate import SPLITS, SUMMARY_FILE, load_simulation, simulate
from rankloom.data.simulate.signal import PARTS
from rankloom.data.simulate.world import CROSSES
from rankloom.errors import ConfigError, DataError
from rankloom.metrics import auc, gauc

SMALL = {
    "rows.train": 24_000,
    "rows.valid": 3_000,
    "rows.test": 6_000,
    "users.count": 300,
    "items.count": 2_000,
    "items.categories": 12,
    "items.creators": 80,
    "history.length": 80,
    "history.initial": 60,
    "parts": True,
}
NEAR = 20


def write(folder: Path, **values: Any) -> pa.Table:
    """Simulate a small log and give all its requests in order of splits."""
    changes = {key.replace("__", "."): value for key, value in values.items()}
    simulate(load_simulation(None, SMALL | changes), folder)
    return read(folder)


def read(folder: Path) -> pa.Table:
    return pa.concat_tables(
        pq.read_table(file) for split in SPLITS for file in sorted((folder / split).iterdir())
    )


@pytest.fixture(scope="module")
def log(tmp_path_factory: pytest.TempPathFactory) -> pa.Table:
    return write(tmp_path_factory.mktemp("simulated") / "log")


@pytest.fixture(scope="module")
def rows(log: pa.Table) -> dict[str, np.ndarray]:
    """All columns at the rows; histories left out."""
    size = np.diff(log["item_id"].combine_chunks().offsets.to_numpy())
    found = {}
    for name in log.column_names:
        column = log[name].combine_chunks()
        if not pa.types.is_list(column.type):
            found[name] = np.repeat(column.to_numpy(), size)
        elif not name.startswith("history_"):
            found[name] = column.values.to_numpy()
    return found


def test_the_same_seed_gives_the_same_files_and_another_seed_others(tmp_path: Path) -> None:
    first, again, other = (
        {file.name: file.read_bytes() for file in sorted(tmp_path.glob(f"{name}/test/*"))}
        for name, seed in (("a", 3), ("b", 3), ("c", 4))
        if write(tmp_path / name, seed=seed)
    )
    assert first == again
    assert first != other


def test_every_split_is_later_than_the_one_before_and_about_as_large_as_asked(
    tmp_path: Path,
) -> None:
    write(tmp_path / "log")
    tables = {split: pq.read_table(tmp_path / "log" / split) for split in SPLITS}
    ends = [
        (t["timestamp"].to_numpy().min(), t["timestamp"].to_numpy().max()) for t in tables.values()
    ]
    assert ends[0][1] < ends[1][0]
    assert ends[1][1] < ends[2][0]
    counts = [len(table["item_id"].combine_chunks().values) for table in tables.values()]
    assert counts == pytest.approx([24_000, 3_000, 6_000], rel=0.2)


def test_a_history_is_what_the_user_clicked_strictly_before(log: pa.Table) -> None:
    before: dict[int, tuple[list[int], int]] = {}
    for one in log.sort_by([("timestamp", "ascending")]).to_pylist():
        assert max(one["history_time"], default=0) < one["timestamp"]
        assert one["history_time"] == sorted(one["history_time"])
        history, total = (
            one["history_item_id"],
            one["history_first_event"] + len(one["history_item_id"]),
        )
        if one["user_id"] in before:
            assert (history, total) == before[one["user_id"]]
        clicked = [item for item, click in zip(one["item_id"], one["click"], strict=True) if click]
        before[one["user_id"]] = (history + clicked)[-80:], total + len(clicked)
    assert len(before) > 200


def test_candidates_of_a_request_differ_and_are_as_many_as_asked(log: pa.Table) -> None:
    for items in log["item_id"].to_pylist():
        assert len(set(items)) == len(items)
        assert 10 <= len(items) <= 50


@pytest.mark.parametrize("task", ["click", "like", "buy", "watch_s"])
def test_what_happens_has_the_probability_that_the_oracle_says(
    rows: dict[str, np.ndarray], task: str
) -> None:
    truth, happened = rows[f"oracle_{task}"].astype(float), rows[task].astype(float)
    for group in np.array_split(np.argsort(truth), 8):
        expected = truth[group].mean()
        spread = max(happened[group].std(), np.sqrt(expected * (task != "watch_s")))
        assert abs(happened[group].mean() - expected) < 4 * spread / np.sqrt(len(group))


def test_the_parts_add_up_to_the_logit_of_a_click(rows: dict[str, np.ndarray]) -> None:
    p = rows["oracle_click"].astype(float)
    rest = np.log(p / (1 - p)) - sum(rows[f"oracle_part_{name}"].astype(float) for name in PARTS)
    assert np.ptp(rest) < 1e-3
    unbiased = rows["oracle_click_unbiased"]
    is_first = rows["position"] == 0
    assert np.allclose(unbiased[is_first], rows["oracle_click"][is_first], atol=1e-6)
    assert (unbiased[~is_first] > rows["oracle_click"][~is_first]).all()


def test_each_part_has_about_the_strength_asked_for(rows: dict[str, np.ndarray]) -> None:
    config = load_simulation(None, SMALL).signal
    for name in PARTS:
        wanted = getattr(config, name)
        assert rows[f"oracle_part_{name}"].std() == pytest.approx(wanted, rel=0.25), name


def test_the_far_past_part_follows_from_the_columns(
    log: pa.Table, rows: dict[str, np.ndarray]
) -> None:
    counts = []
    for one in log.select(["history_category", "category"]).to_pylist():
        far = np.bincount(one["history_category"][:-NEAR], minlength=12)
        counts.append(far[one["category"]])
    expected = np.log1p(np.concatenate(counts))
    part = rows["oracle_part_far_past"]
    slope, intercept = np.polyfit(expected, part, 1)
    assert np.abs(slope * expected + intercept - part).max() < 1e-4
    assert slope > 0


def test_the_near_past_part_follows_from_the_newest_events(tmp_path: Path) -> None:
    """Requests whose near past and candidate agree have the same part, whatever else differs."""
    table = write(tmp_path / "log", items__count=100, history__initial=0, rows__train=8_000)
    known: dict[tuple[Any, ...], float] = {}
    met = 0
    for one in table.to_pylist():
        near = tuple(one["history_item_id"][-NEAR:])
        for item, part in zip(one["item_id"], one["oracle_part_near_past"], strict=True):
            met += (near, item) in known
            assert known.setdefault((near, item), part) == pytest.approx(part, abs=1e-5)
    assert met > 50


def explained(values: np.ndarray, columns: Iterable[np.ndarray]) -> float:
    """Give the share of variance between the groups that columns make, less what chance gives."""
    keys = np.unique(np.stack(list(columns)), axis=1, return_inverse=True)[1]
    values = (values - values.mean()) / values.std()
    sums = np.bincount(keys, values)
    return float((sums**2 / np.bincount(keys)).sum() - keys.max() - 1) / len(values)


@pytest.mark.parametrize(("part", "order"), [("pairs", 2), ("triples", 3)])
def test_fewer_columns_than_a_cross_has_say_nothing_of_it(
    rows: dict[str, np.ndarray], part: str, order: int
) -> None:
    values = rows[f"oracle_part_{part}"].astype(float)
    names = sorted({name for cross in CROSSES[part] for name in cross})
    for count in range(1, order):
        for members in itertools.combinations(names, count):
            assert explained(values, [rows[name] for name in members]) < 0.06, members
    for cross in CROSSES[part]:
        assert explained(values, [rows[name] for name in cross]) > 0.15, cross


def test_by_default_the_place_says_nothing_of_the_candidate(rows: dict[str, np.ndarray]) -> None:
    noise = 1 / np.sqrt(len(rows["position"]))
    relevance = sum(rows[f"oracle_part_{name}"] for name in PARTS if name != "position")
    inside = rows["position"] < 10  # every request has that many
    found = np.corrcoef(rows["position"][inside], relevance[inside])[0, 1]
    assert abs(found) < 4 * noise


def test_in_order_of_popularity_the_popular_stand_in_front(tmp_path: Path) -> None:
    table = write(tmp_path / "log", requests__order="popularity")
    item = table["item_id"].combine_chunks().values.to_numpy()
    position = table["position"].combine_chunks().values.to_numpy()
    often = np.bincount(item)[item]
    assert often[position == 0].mean() > 1.5 * often[position == 9].mean()


def test_the_summary_gives_the_exact_auc_and_gauc_of_the_oracle(tmp_path: Path) -> None:
    write(tmp_path / "log", layout="flat")
    test = pq.read_table(tmp_path / "log" / "test")
    summary = json.loads((tmp_path / "log" / SUMMARY_FILE).read_text())["splits"]["test"]
    label, truth = test["click"].to_numpy(), test["oracle_click"].to_numpy()
    assert summary["rows"] == len(test)
    assert summary["rate"]["click"] == pytest.approx(label.mean())
    assert summary["oracle_auc"]["click"] == pytest.approx(auc(label, truth), abs=2e-5)
    groups = test["user_id"].to_numpy()
    assert summary["oracle_gauc"]["click"] == pytest.approx(
        gauc(groups, label, truth).value, abs=1e-4
    )
    logit = np.log(test["oracle_click_unbiased"].to_numpy().astype(float) ** -1 - 1)
    without = -logit - test["oracle_part_far_past"].to_numpy()
    assert summary["oracle_auc"]["click_unbiased without far_past"] == pytest.approx(
        auc(label, without), abs=2e-5
    )


def test_flat_and_grouped_logs_hold_the_same_rows(tmp_path: Path) -> None:
    flat, grouped = (write(tmp_path / layout, layout=layout) for layout in ("flat", "grouped"))
    size = np.diff(grouped["item_id"].combine_chunks().offsets.to_numpy())
    for name in flat.column_names:
        column = grouped[name].combine_chunks()
        if name.startswith("history_") or not pa.types.is_list(column.type):
            column = column.take(pa.array(np.repeat(np.arange(len(size)), size)))
        else:
            column = column.values
        assert flat[name].combine_chunks().equals(column), name


def test_ungrouping_a_grouped_log_gives_the_flat_one(tmp_path: Path) -> None:
    flat, _ = (write(tmp_path / layout, layout=layout) for layout in ("flat", "grouped"))
    files = [str(tmp_path / "grouped" / split / "*.parquet") for split in SPLITS]
    for split, file in zip(SPLITS, files, strict=True):
        ungroup_log(file, tmp_path / "back" / split)
    assert read(tmp_path / "back").equals(flat)


def test_a_log_of_many_blocks_has_many_files_and_all_users_and_requests_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("rankloom.data.simulate.writer._VALUES_OF_BLOCK", 400_000)
    log = write(tmp_path / "log")
    assert len(list((tmp_path / "log" / "train").iterdir())) > 3
    requests = log["request_id"].to_numpy()
    assert sorted(requests) == list(range(len(requests)))
    users = log["user_id"].to_numpy()
    assert len(np.unique(users)) > 200
    assert users.max() < 300


def test_a_part_of_strength_0_is_nothing(tmp_path: Path) -> None:
    table = write(tmp_path / "log", signal__triples=0, signal__position=0)
    assert not table["oracle_part_triples"].combine_chunks().values.to_numpy().any()
    assert table["oracle_click"].equals(table["oracle_click_unbiased"])


def test_all_mistakes_of_a_config_are_named_at_once() -> None:
    with pytest.raises(ConfigError) as caught:
        load_simulation(None, {"rows.trian": 5, "rates.click": 2.0, "users.count": 0})
    text = str(caught.value)
    assert "rows.trian: unknown key. Did you mean 'train'?" in text
    assert "rates.click" in text
    assert "users.count" in text


@pytest.mark.parametrize(
    ("change", "place"),
    [
        ({"history.length": 60}, "history.length"),
        ({"items.count": 90}, "items.count"),
        ({"users.interests": 61}, "users.interests"),
        ({"requests.candidates": [9, 4]}, "candidates"),
    ],
)
def test_sizes_that_do_not_fit_each_other_are_refused(change: dict[str, Any], place: str) -> None:
    with pytest.raises(ConfigError, match=place):
        load_simulation(None, change)


def test_a_folder_that_holds_something_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "mine.txt").write_text("precious")
    with pytest.raises(DataError, match="holds something already"):
        simulate(load_simulation(None, SMALL), tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["mine.txt"]


def test_a_simulation_that_fails_leaves_no_folder(tmp_path: Path) -> None:
    def fail(_: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        simulate(load_simulation(None, SMALL), tmp_path / "log", progress=fail)
    assert not list(tmp_path.iterdir())
