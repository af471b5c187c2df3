"""What the server counts and measures, in one process."""

from __future__ import annotations

import subprocess
import sys
import threading
import time

import pytest
from prometheus_client.parser import text_string_to_metric_families

from rankloom.serving.telemetry.cells import Cells
from rankloom.serving.telemetry.metrics import Metrics


def samples(metrics: Metrics) -> dict[tuple[str, ...], float]:
    """Give name and labels' values -> value, as Prometheus reads them."""
    families = text_string_to_metric_families(metrics.render().decode())
    return {
        (one.name, *(one.labels[key] for key in sorted(one.labels))): one.value
        for family in families
        for one in family.samples
    }


def test_a_request_is_counted_by_interface_and_status():
    metrics = Metrics()
    for seconds in (0.0005, 0.0121, 9.0):
        metrics.begin_request()
        metrics.end_request("json", 200, seconds=seconds, received_bytes=100, sent_bytes=7)
    metrics.begin_request()
    metrics.end_request("msgpack", 503, seconds=0.001)
    metrics.begin_request()
    found = samples(metrics)
    bucket = "rankloom_request_seconds_bucket"
    # Labels in the order of their names: interface, le, status. A bound is inclusive.
    assert found[bucket, "json", "0.0005", "200"] == 1
    assert found[bucket, "json", "0.01", "200"] == 1
    assert found[bucket, "json", "0.015", "200"] == 2
    assert found[bucket, "json", "5.0", "200"] == 2
    assert found[bucket, "json", "+Inf", "200"] == 3
    assert found["rankloom_request_seconds_count", "json", "200"] == 3
    assert found["rankloom_request_seconds_sum", "json", "200"] == pytest.approx(9.0126)
    assert found["rankloom_request_seconds_count", "msgpack", "503"] == 1
    assert found["rankloom_received_bytes_total", "json"] == 300
    assert found["rankloom_sent_bytes_total", "json"] == 21
    assert found["rankloom_requests_in_flight",] == 1


def test_stages_are_given_in_milliseconds_and_told_in_seconds():
    metrics = Metrics()
    metrics.begin_request()
    metrics.end_request("kserve", 200, seconds=0.02, stages_ms={"queue": 4.0, "user": 0.5})
    found = samples(metrics)
    assert found["rankloom_stage_seconds_sum", "queue"] == 0.004
    assert found["rankloom_stage_seconds_bucket", "0.003", "queue"] == 0
    assert found["rankloom_stage_seconds_bucket", "0.005", "queue"] == 1
    assert found["rankloom_stage_seconds_bucket", "0.0005", "user"] == 1


def test_everything_else_has_its_series():
    metrics = Metrics()
    metrics.miss_deadline()
    metrics.reject("deadline")
    metrics.reject("deadline")
    metrics.run_batch(candidates=500, requests=3)
    metrics.set_queue(9)
    metrics.set_queue(4)
    metrics.look_up_user("hit")
    metrics.set_user_cache(entries=2, num_bytes=640, evictions=5)
    metrics.set_user_cache(entries=1, num_bytes=320, evictions=1)
    metrics.count_oov({"item": 3, "history.item": 1})
    metrics.look_up_store("items", hits=498, missing=2)
    metrics.reload("refused")
    metrics.restart("compute")
    metrics.log_lines("access", "queue_full", 7)
    found = samples(metrics)
    assert found["rankloom_deadline_misses_total",] == 1
    assert found["rankloom_rejections_total", "deadline"] == 2
    assert found["rankloom_batch_candidates_bucket", "200.0"] == 0
    assert found["rankloom_batch_candidates_bucket", "500.0"] == 1
    assert found["rankloom_batch_requests_sum",] == 3
    assert found["rankloom_queue_length",] == 4
    assert found["rankloom_user_cache_lookups_total", "hit"] == 1
    assert found["rankloom_user_cache_entries",] == 1
    assert found["rankloom_user_cache_bytes",] == 320
    assert found["rankloom_user_cache_evictions_total",] == 6
    assert found["rankloom_oov_ids_total", "history.item"] == 1
    assert found["rankloom_store_lookups_total", "hit", "items"] == 498
    assert ("rankloom_store_lookups_total", "error", "items") not in found
    assert found["rankloom_reloads_total", "refused"] == 1
    assert found["rankloom_process_restarts_total", "compute"] == 1
    assert found["rankloom_log_lines_total", "access", "queue_full"] == 7
    assert found["rankloom_process_resident_bytes", "server"] > 1e6


def test_only_the_artifact_that_is_served_is_shown():
    metrics = Metrics()
    metrics.serve_artifact("mine", "aaa")
    metrics.serve_artifact("mine", "bbb")
    found = samples(metrics)
    assert [key for key in found if key[0] == "rankloom_artifact_info"] == [
        ("rankloom_artifact_info", "bbb", "mine")
    ]
    metrics.serve_artifact("mine", "aaa")
    assert ("rankloom_artifact_info", "aaa", "mine") in samples(metrics)


def test_a_snapshot_has_what_charts_need():
    metrics = Metrics()
    metrics.serve_artifact("mine", "aaa")
    for status in (200, 200, 504):
        metrics.begin_request()
        metrics.end_request("json", status, seconds=0.002, stages_ms={"user": 1.5})
    metrics.run_batch(candidates=20, requests=2)
    metrics.look_up_user("miss")
    metrics.look_up_store("items", hits=3)
    metrics.look_up_store("users", hits=1)
    found = metrics.snapshot()
    assert found["requests"] == {"200": 2, "504": 1}
    at = found["bounds_ms"].index(2.0)
    assert found["latency"]["buckets"][at] == 3
    assert len(found["latency"]["buckets"]) == len(found["bounds_ms"]) + 1
    assert found["latency"]["sum_ms"] == pytest.approx(6.0)
    assert found["stages"]["user"]["sum_ms"] == pytest.approx(4.5)
    assert found["batches"] == {"count": 1, "candidates": 20, "requests": 2}
    assert found["cache"]["miss"] == 1
    assert found["cache"]["hit"] == 0
    assert found["store"] == {"hit": 4}
    assert found["artifacts"] == [{"name": "mine", "digest": "aaa"}]
    assert found["in_flight"] == 0


def test_threads_that_begin_one_series_share_it(monkeypatch: pytest.MonkeyPatch) -> None:
    def slowly(cells: Cells, key: str, count: int) -> int | None:
        time.sleep(0.05)
        return append(cells, key, count)

    append = Cells._append
    monkeypatch.setattr(Cells, "_append", slowly)
    metrics = Metrics()
    threads = [threading.Thread(target=metrics.miss_deadline) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert metrics.snapshot()["deadline_misses"] == 3


def test_labels_may_hold_anything():
    metrics = Metrics()
    metrics.count_oov({'a"b\\c\nd': 1, "Zürich": 2})
    found = samples(metrics)
    assert found["rankloom_oov_ids_total", 'a"b\\c\nd'] == 1
    assert found["rankloom_oov_ids_total", "Zürich"] == 2


def test_an_unsuspecting_process_loads_neither_torch_nor_more():
    code = (
        "import sys; from rankloom.serving.telemetry import access_log, metrics, oov, request_log;"
        "metrics.Metrics().miss_deadline();"
        "print([m for m in ('torch', 'pyarrow', 'prometheus_client') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
