"""The families of metrics: their names, labels and buckets."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Literal

MILLISECONDS = (
    0.5,
    1,
    2,
    3,
    5,
    7.5,
    10,
    15,
    20,
    30,
    40,
    50,
    75,
    100,
    150,
    200,
    300,
    500,
    1000,
    5000,
)
SECONDS = tuple(bound / 1000 for bound in MILLISECONDS)
COUNTS = (1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0)
MANY = (1.0, 10.0, 50.0, 100.0, 200.0, 500.0, 1000.0, 2000.0, 5000.0, 10_000.0)


# Equal only to itself: it is looked up several times a request.
@dataclass(frozen=True, eq=False)
class Family:
    """One metric with all its labels' values."""

    name: str
    """Without the suffixes that its kind adds."""
    kind: Literal["counter", "gauge", "histogram", "info"]
    """A gauge is the sum over living processes; an info is 1 where it holds at present."""
    text: str
    """What it counts or measures."""
    labels: tuple[str, ...] = ()
    """Their names."""
    bounds: tuple[float, ...] = ()
    """Upper bounds of a histogram's buckets, inclusive; one more is for all above."""

    @property
    def num_cells(self) -> int:
        """Numbers of a series: one, or each bucket's count and then the sum."""
        return len(self.bounds) + 2 if self.kind == "histogram" else 1

    @property
    def is_state(self) -> bool:
        """Whether it tells how things are, rather than what happened."""
        return self.kind in {"gauge", "info"}

    def key(self, values: tuple[str, ...]) -> str:
        """Name a series by its labels' values."""
        return json.dumps([self.name, *values])


REQUESTS = Family(
    "rankloom_request_seconds",
    "histogram",
    "Seconds from the last byte of a request to the first byte of its answer.",
    ("interface", "status"),
    SECONDS,
)
STAGES = Family(
    "rankloom_stage_seconds",
    "histogram",
    "Seconds that answered requests spent in a stage.",
    ("stage",),
    SECONDS,
)
IN_FLIGHT = Family("rankloom_requests_in_flight", "gauge", "Requests that wait for their answer.")
RECEIVED = Family(
    "rankloom_received_bytes", "counter", "Bytes of requests' bodies.", ("interface",)
)
SENT = Family("rankloom_sent_bytes", "counter", "Bytes of answers' bodies.", ("interface",))
LATE = Family(
    "rankloom_deadline_misses", "counter", "Admitted requests that were not answered in time."
)
REJECTIONS = Family(
    "rankloom_rejections",
    "counter",
    "Requests that were refused unscored: late, crowding out others, too many (full), or not tried "
    "because of a refusal right before (held).",
    ("reason",),
)
BATCH_CANDIDATES = Family(
    "rankloom_batch_candidates", "histogram", "Candidates scored at once.", (), MANY
)
BATCH_REQUESTS = Family(
    "rankloom_batch_requests", "histogram", "Requests with candidates in one batch.", (), COUNTS
)
QUEUE = Family("rankloom_queue_length", "gauge", "Requests that wait for the compute process.")
CACHE_LOOKUPS = Family(
    "rankloom_user_cache_lookups",
    "counter",
    "User states asked for: found (hit), computed (miss), awaited while another computes (wait).",
    ("result",),
)
CACHE_EVICTIONS = Family("rankloom_user_cache_evictions", "counter", "User states thrown out.")
CACHE_BYTES = Family("rankloom_user_cache_bytes", "gauge", "Bytes of cached user states.")
CACHE_ENTRIES = Family("rankloom_user_cache_entries", "gauge", "Cached user states.")
UNKNOWN_IDS = Family(
    "rankloom_oov_ids",
    "counter",
    "Ids that the vocabulary does not have.",
    ("feature",),
)
STORE_LOOKUPS = Family(
    "rankloom_store_lookups",
    "counter",
    "Keys asked of a feature store, by result: hit, missing, error.",
    ("store", "result"),
)
ARTIFACT = Family("rankloom_artifact", "info", "The artifact that is served.", ("name", "digest"))
RELOADS = Family("rankloom_reloads", "counter", "Artifacts offered for serving.", ("result",))
RESTARTS = Family(
    "rankloom_process_restarts", "counter", "Processes started anew after an end.", ("process",)
)
LOG_LINES = Family(
    "rankloom_log_lines",
    "counter",
    "Lines of the logs: written, or dropped and why.",
    ("log", "result"),
)

FAMILIES = {
    one.name: one
    for one in (
        REQUESTS,
        STAGES,
        IN_FLIGHT,
        RECEIVED,
        SENT,
        LATE,
        REJECTIONS,
        BATCH_CANDIDATES,
        BATCH_REQUESTS,
        QUEUE,
        CACHE_LOOKUPS,
        CACHE_EVICTIONS,
        CACHE_BYTES,
        CACHE_ENTRIES,
        UNKNOWN_IDS,
        STORE_LOOKUPS,
        ARTIFACT,
        RELOADS,
        RESTARTS,
        LOG_LINES,
    )
}
"""Name -> family, in the order they are shown in."""
