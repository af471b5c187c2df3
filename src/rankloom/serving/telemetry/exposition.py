"""The metrics in Prometheus' text format."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import accumulate

from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    InfoMetricFamily,
    Metric,
)
from prometheus_client.exposition import generate_latest
from prometheus_client.registry import Collector

from rankloom.serving.telemetry.families import FAMILIES, Family
from rankloom.serving.telemetry.readings import Readings


def render(readings: Readings) -> bytes:
    """Write the metrics of all processes."""
    return generate_latest(_Readings(readings))


class _Readings(Collector):
    """Readings as prometheus_client takes them.

    Args:
        readings: Of all processes.
    """

    def __init__(self, readings: Readings) -> None:
        self._readings = readings

    def collect(self) -> Iterator[Metric]:
        """Give each family with its series."""
        for family in FAMILIES.values():
            yield _metric(family, self._readings)
        memory = GaugeMetricFamily(
            "rankloom_process_resident_bytes",
            "Memory that a process holds.",
            labels=("process",),
        )
        for process, size in self._readings.resident_bytes.items():
            memory.add_metric((process,), size)
        yield memory


def _metric(family: Family, readings: Readings) -> Metric:
    series = readings.series[family.name]
    if family.kind == "histogram":
        histogram = HistogramMetricFamily(family.name, family.text, labels=family.labels)
        names = [*map(str, family.bounds), "+Inf"]
        for labels, cells in series.items():
            buckets = list(zip(names, accumulate(cells[:-1]), strict=True))
            histogram.add_metric(labels, buckets, sum_value=cells[-1])
        return histogram
    if family.kind == "info":
        info = InfoMetricFamily(family.name, family.text)
        for labels, cells in series.items():
            if cells[0]:
                info.add_metric((), dict(zip(family.labels, labels, strict=True)))
        return info
    kind = CounterMetricFamily if family.kind == "counter" else GaugeMetricFamily
    metric = kind(family.name, family.text, labels=family.labels)
    for labels, cells in series.items():
        metric.add_metric(labels, cells[0])
    return metric
