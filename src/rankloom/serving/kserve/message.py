"""Requests and answers of `infer`: JSON, and the raw tensors behind it."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any

import msgspec
import numpy as np

from rankloom.data.plain_lists import shown
from rankloom.errors import RequestError, did_you_mean, join_problems
from rankloom.serving.front.problems import TooLargeError
from rankloom.serving.kserve.columns import check_length, columns_of
from rankloom.serving.kserve.model import PREFIXES, Model, output_names, version_of
from rankloom.serving.kserve.tensors import Tensor, TensorHead, decode_tensor
from rankloom.serving.limits import Limits
from rankloom.serving.request import RankRequest, RankResult

HEADER_LENGTH = "Inference-Header-Content-Length"
DEADLINE = "X-Deadline-Ms"
MAX_TENSORS = 4096
MAX_JSON_BYTES = 2 << 20
"""JSON is read in one go, in which nothing else is served: long tensors come as raw bytes."""
MAX_PROBLEMS = 100
_MILLISECONDS = re.compile(r"[0-9]{1,9}(\.[0-9]{1,9})?")
_BYTES = re.compile(r"[0-9]{1,15}")
_US_PER_MS = 1000.0
_Time = Annotated[float, msgspec.Meta(ge=0, le=1e9)]


class OutputParameters(msgspec.Struct, forbid_unknown_fields=True):
    """How an output comes back."""

    binary_data: bool | None = None
    """Whether as raw bytes; by default as the request says."""


class OutputHead(msgspec.Struct):
    """An output that a request asks for."""

    name: str
    parameters: OutputParameters | None = None


class Parameters(msgspec.Struct, forbid_unknown_fields=True):
    """What holds for a whole request; what would have no effect is refused."""

    binary_data_output: bool = False
    """Whether outputs come back as raw bytes."""
    deadline_ms: _Time | None = None
    """What is left of the client's time."""
    timeout: _Time | None = None
    """The same in microseconds, as Triton calls it."""
    top_k: Annotated[int, msgspec.Meta(ge=1)] | None = None
    """How many of the best candidates `order` names."""


class InferHead(msgspec.Struct):
    """A request's JSON."""

    inputs: list[TensorHead]
    id: str | None = None
    parameters: Parameters | None = None
    outputs: list[OutputHead] | None = None


_DECODER = msgspec.json.Decoder(InferHead)


@dataclass(frozen=True, kw_only=True)
class Asked:
    """A decoded request, and how it wants to be answered."""

    request: RankRequest
    outputs: Mapping[str, bool] | None
    """Output -> whether as raw bytes; without them, all."""
    is_raw: bool
    """Whether outputs are raw bytes where none is named."""
    ignored: Sequence[str]
    """Inputs that nothing reads."""


def read_request(body: bytes, headers: Mapping[str, str], *, model: Model, limits: Limits) -> Asked:
    """Decode a request.

    Args:
        body: JSON, and raw tensors behind it.
        headers: Of HTTP, whatever their case.
        model: What is served.
        limits: Of candidates and events.

    Raises:
        TooLargeError: Its JSON is too long.
        RequestError: It is malformed, or its tensors do not fit what is read; all that can be told
            at once.
    """
    head, raw = _split(body, headers.get(HEADER_LENGTH))
    parameters = head.parameters or Parameters()
    inputs = _Inputs(model, limits)
    inputs.read(head.inputs, raw)
    problems = inputs.problems
    # What could not be decoded would be missed among the others.
    columns = columns_of({} if problems else inputs.tensors, model)
    problems += columns.problems
    outputs = _wanted(head.outputs or (), parameters.binary_data_output, model, problems)
    deadline_ms = _deadline_ms(parameters, headers.get(DEADLINE), problems)
    if problems:
        raise RequestError(join_problems(problems, where="request" if problems[1:] else ""))
    request = RankRequest(
        user=columns.user,
        candidates=columns.candidates,
        context=columns.context,
        deadline_ms=deadline_ms,
        top_k=None if parameters.top_k is None else min(parameters.top_k, limits.candidates),
        id=head.id or "",
    )
    return Asked(
        request=request,
        outputs=outputs,
        is_raw=parameters.binary_data_output,
        ignored=inputs.ignored,
    )


def write_answer(result: RankResult, asked: Asked, *, name: str) -> tuple[bytes, int | None]:
    """Encode an answer.

    Args:
        result: Of the request.
        asked: The request.
        name: Of the model.

    Returns:
        body: JSON, and raw tensors behind it.
        header_length: Bytes of JSON, if raw tensors follow.

    Raises:
        RequestError: The artifact was swapped for one without a task that was asked for.
    """
    arrays = [*result.scores.values(), result.blended, result.order]
    values = dict(zip(output_names(result.scores), arrays, strict=True))
    wanted = dict.fromkeys(values, asked.is_raw) if asked.outputs is None else asked.outputs
    outputs, raw = [], []
    for output, is_raw in wanted.items():
        if output not in values:
            raise RequestError(
                f"output {output!r}: the model has it no more. Got a newer one meanwhile. Ask anew."
            )
        array = values[output]
        datatype, dtype = ("INT64", "<i8") if array.dtype.kind == "i" else ("FP64", "<f8")
        tensor: dict[str, Any] = {"name": output, "datatype": datatype, "shape": [len(array)]}
        if is_raw:
            raw.append(np.ascontiguousarray(array, dtype).tobytes())
            tensor["parameters"] = {"binary_data_size": len(raw[-1])}
        else:
            tensor["data"] = array.tolist()
        outputs.append(tensor)
    parameters: dict[str, Any] = {"digest": result.digest}
    parameters |= {f"{stage}_ms": passed for stage, passed in result.timing_ms.items()}
    if asked.ignored:
        parameters["ignored"] = ", ".join(asked.ignored)
    answer = {"model_name": name, "model_version": version_of(result.digest), "id": result.id}
    if not result.id:
        del answer["id"]
    head = msgspec.json.encode({**answer, "parameters": parameters, "outputs": outputs})
    return b"".join([head, *raw]), len(head) if raw else None


def _split(body: bytes, header_length: str | None) -> tuple[InferHead, memoryview | None]:
    """Give the JSON and, if a header says where they begin, the raw bytes behind it."""
    raw = None
    if header_length is not None:
        length = int(header_length) if _BYTES.fullmatch(header_length) else -1
        if not 0 < length <= len(body):
            raise RequestError(
                f"{HEADER_LENGTH}: must be a number of bytes from 1 to the body's {len(body)}. Got "
                f"{shown(header_length)}. Give the length of the JSON."
            )
        raw = memoryview(body)[length:]
        body = body[:length]
    if len(body) > MAX_JSON_BYTES:
        raise TooLargeError(
            f"body: its JSON is longer than {MAX_JSON_BYTES} bytes. Got {len(body)}. Send tensors "
            "as raw bytes behind it."
        )
    try:
        return _DECODER.decode(body), raw
    except (ValueError, RecursionError) as error:
        # A text that is no UTF-8, nesting without end, malformed JSON, or JSON of another form.
        told = "nested too deep" if isinstance(error, RecursionError) else str(error)[:500]
        raise RequestError(f"body: is no inference request. Got {told}. Mend the JSON.") from None


class _Inputs:
    """Reads the tensors of one request; notes what is wrong, and goes on where that makes sense."""

    def __init__(self, model: Model, limits: Limits) -> None:
        self._model = model
        self._limits = limits
        self.tensors: dict[str, Tensor] = {}
        self.ignored: list[str] = []
        self.problems: list[str] = []

    def read(self, heads: Sequence[TensorHead], raw: memoryview | None) -> None:
        """Read tensors.

        Args:
            heads: What the JSON says of them.
            raw: All raw bytes, if there are such.
        """
        if len(heads) > MAX_TENSORS:
            self.problems.append(
                f"inputs: at most {MAX_TENSORS} are allowed. Got {len(heads)}. Send fewer."
            )
            return
        names: set[str] = set()
        at, num_raw = 0, len(raw or b"")
        for head in heads:
            if len(self.problems) >= MAX_PROBLEMS:
                return
            if head.name in names:
                self.problems.append(f"{head.where}: is given twice. Give it once.")
            names.add(head.name)
            size, part = head.raw_bytes, None
            if size is not None:
                if raw is None or at + size > num_raw:
                    # Where the next one's bytes begin is not known.
                    self.problems.append(
                        f"{head.where}: its raw bytes go beyond the body. Got binary_data_size "
                        f"{shown(size)} where {num_raw - at} bytes are left. Send them behind the "
                        f"JSON, whose length the header {HEADER_LENGTH} gives."
                    )
                    return
                part = raw[at : at + size]
                at += size
            try:
                self._read(head, part)
            except RequestError as error:
                self.problems.append(str(error))
        if at != num_raw:
            self.problems.append(
                f"body: raw bytes belong to no input. Got {num_raw - at} of them. Give each "
                "input's binary_data_size."
            )

    def _read(self, head: TensorHead, raw: memoryview | None) -> None:
        found = self._model.find(head.name)
        if found is not None:
            one, is_offsets = found
            check_length(head, one, is_offsets=is_offsets, limits=self._limits)
            self.tensors[head.name] = decode_tensor(head, raw)
        elif head.name.startswith(PREFIXES):
            self.ignored.append(head.name)
        else:
            raise RequestError(
                f"{head.where}: belongs nowhere. Got none of {', '.join(PREFIXES)} before a "
                "column. Name it so."
            )


def _wanted(
    heads: Sequence[OutputHead], is_raw: bool, model: Model, problems: list[str]
) -> dict[str, bool] | None:
    """Give the outputs that are asked for, each with whether as raw bytes."""
    unknown = [output.name for output in heads if output.name not in model.outputs]
    if unknown:
        hint = did_you_mean(unknown[0][:200], model.outputs)
        known = ", ".join(model.outputs)
        problems.append(f"outputs: the model has no {shown(unknown)}.{hint} Known: {known}.")
    wanted: dict[str, bool] = {}
    for output in heads:
        stated = output.parameters.binary_data if output.parameters else None
        wanted[output.name] = is_raw if stated is None else stated
    if len(wanted) < len(heads):
        problems.append("outputs: one is asked for twice. Ask once for each.")
    return wanted or None


def _deadline_ms(parameters: Parameters, header: str | None, problems: list[str]) -> float | None:
    """Give the shortest of the times that a client states, in milliseconds."""
    stated = [] if parameters.deadline_ms is None else [parameters.deadline_ms]
    if parameters.timeout is not None:
        stated.append(parameters.timeout / _US_PER_MS)
    if header is not None and _MILLISECONDS.fullmatch(header):
        stated.append(float(header))
    elif header is not None:
        problems.append(
            f"{DEADLINE}: must be a number of milliseconds. Got {shown(header)}. Change it."
        )
    return min(stated, default=None)
