"""Random ranking requests of a log in MovieLens' columns, and a server's answers to them.

A request is what all interfaces can say: unknown ids, empty histories, missing numbers, candidates
without any genre, 1 to 200 candidates.

Shapes: N candidates.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from http.client import HTTPConnection
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
import pyarrow.parquet as pq
import tritonclient.http as triton

from rankloom.serving.client import Client

Request = Mapping[str, Mapping[str, Any]]
"""`user`, `context` and `candidates` -> columns."""

USER = ("user_id", "age", "gender", "occupation")
HISTORY = ("history_item_id", "history_rating", "history_time")
CONTEXT = ("hour", "weekday", "timestamp")
ITEM = ("item_id", "release_year", "genres")
MAX_CANDIDATES = 200
DEADLINE_MS = 60_000.0


class RandomRequests:
    """Draws requests from the rows of a log.

    Args:
        log: Parquet file.
        generator: Of all draws.
    """

    def __init__(self, log: Path, generator: np.random.Generator) -> None:
        columns = [*USER, *HISTORY, "history_first_event", *CONTEXT, *ITEM]
        self._rows = pq.read_table(log, columns=columns).to_pylist()
        self._generator = generator

    def draw(self) -> Request:
        """Give one request."""
        row = self._row()
        user = {name: row[name] for name in (*USER, *HISTORY, "history_first_event")}
        if self._is_rare(0.1):
            user["user_id"] = f"unknown_{self._generator.integers(1000)}"
        if self._is_rare(0.15):
            user |= {name: [] for name in HISTORY} | {"history_first_event": 0}
        if self._is_rare(0.1):
            user["age"] = None
        items = [self._item() for _ in range(self._generator.integers(1, MAX_CANDIDATES + 1))]
        return {
            "user": user,
            "context": {name: row[name] for name in CONTEXT},
            "candidates": {name: [item[name] for item in items] for name in ITEM},
        }

    def _item(self) -> dict[str, Any]:
        item = {name: value for name, value in self._row().items() if name in ITEM}
        if self._is_rare(0.05):
            item["item_id"] = f"unknown_{self._generator.integers(1000)}"
        if self._is_rare(0.05):
            item["release_year"] = None
        if self._is_rare(0.05):
            item["genres"] = []
        if self._is_rare(0.05):
            item["genres"] = [*item["genres"], "unknown"]
        return item

    def _row(self) -> dict[str, Any]:
        found: dict[str, Any] = self._rows[self._generator.integers(len(self._rows))]
        return found

    def _is_rare(self, share: float) -> bool:
        return bool(self._generator.random() < share)


@dataclass(frozen=True)
class Answer:
    """What a server said of one request."""

    digest: str
    """Of the artifact that scored it."""
    scores: Mapping[str, npt.NDArray[np.float64]]
    """Task -> (N,)."""


class Asker(Protocol):
    """Asks through one interface; used by one thread."""

    def rank(self, request: Request, *, name: str) -> Answer:
        """Rank one request, which the access log shall call `name`."""

    def close(self) -> None:
        """Close the connection."""


class JsonAsker:
    """Asks as curl would."""

    def __init__(self, address: str) -> None:
        self._connection = HTTPConnection(address, timeout=DEADLINE_MS / 1e3)

    def rank(self, request: Request, *, name: str) -> Answer:
        """Rank one request."""
        body = json.dumps({**request, "id": name, "deadline_ms": DEADLINE_MS})
        self._connection.request("POST", "/v1/rank", body, {"Content-Type": "application/json"})
        response = self._connection.getresponse()
        content = response.read()
        if response.status != 200:
            raise RuntimeError(f"status {response.status}: {content[:1000]!r}")
        found = json.loads(content)
        return Answer(found["digest"], {t: np.array(one) for t, one in found["scores"].items()})

    def close(self) -> None:
        """Close the connection."""
        self._connection.close()


class MsgpackAsker:
    """Asks with RankLoom's own client."""

    def __init__(self, address: str) -> None:
        self._client = Client(f"http://{address}")

    def rank(self, request: Request, *, name: str) -> Answer:
        """Rank one request."""
        years = np.array(request["candidates"]["release_year"], np.float64)
        result = self._client.rank(
            request["user"],
            {**request["candidates"], "release_year": years},
            request["context"],
            deadline_ms=DEADLINE_MS,
            id=name,
        )
        return Answer(result.digest, result.scores)

    def close(self) -> None:
        """Close the connection."""
        self._client.close()


class KserveAsker:
    """Asks with an unmodified `tritonclient`."""

    def __init__(self, address: str) -> None:
        self._client = triton.InferenceServerClient(address, network_timeout=DEADLINE_MS / 1e3)
        (model,) = self._client.get_model_repository_index()
        self._model = model["name"]

    def rank(self, request: Request, *, name: str) -> Answer:
        """Rank one request."""
        answer = self._client.infer(
            self._model,
            [
                tensor
                for place, columns in request.items()
                for column, value in columns.items()
                for tensor in _tensors(f"{place}/{column}", value)
            ],
            request_id=name,
            parameters={"deadline_ms": DEADLINE_MS},
        )
        response = answer.get_response()
        tasks = [one["name"] for one in response["outputs"] if one["name"].startswith("scores/")]
        return Answer(
            response["parameters"]["digest"],
            {task.removeprefix("scores/"): answer.as_numpy(task) for task in tasks},
        )

    def close(self) -> None:
        """Close the connection."""
        self._client.close()


ASKERS: dict[str, Callable[[str], Asker]] = {
    "json": JsonAsker,
    "msgpack": MsgpackAsker,
    "kserve": KserveAsker,
}
"""Interface, as metrics and logs call it -> what asks through it, from `host:port`."""


def _tensors(name: str, value: Any) -> list[triton.InferInput]:
    """Give a column's tensors: two where each candidate has a list."""
    values = value if isinstance(value, list) else [value]
    if values and isinstance(values[0], list):
        flat = [one for each in values for one in each]
        offsets = np.cumsum([0, *map(len, values)])
        return [_tensor(name, flat, is_text=True), _tensor(f"{name}/offsets", offsets)]
    return [_tensor(name, values)]


def _tensor(name: str, values: Any, *, is_text: bool = False) -> triton.InferInput:
    if is_text or any(isinstance(one, str) for one in values):
        array, datatype = np.array(values, object), "BYTES"
    elif any(one is None or isinstance(one, float) for one in values):
        array, datatype = np.array(values, np.float64), "FP64"
    else:
        array, datatype = np.array(values, np.int64), "INT64"
    return triton.InferInput(name, list(array.shape), datatype).set_data_from_numpy(array)
