"""The OpenAPI 3.1 document of what is served: paths that never change, columns that do."""

from __future__ import annotations

from typing import Any

from rankloom.schema import (
    DenseFeature,
    Feature,
    Schema,
    SequenceFeature,
    SparseFeature,
    VectorFeature,
)
from rankloom.serving.front.config import FrontConfig
from rankloom.serving.front.media import MEDIA
from rankloom.serving.front.problems import KINDS
from rankloom.serving.members import MAX_DEADLINE_MS, MAX_ID_LENGTH
from rankloom.serving.request import Served

Json = dict[str, Any]
_PLACES = {"user": "user", "context": "context", "item": "candidates", "cross": "candidates"}
_KINDS: dict[type[Feature], str] = {
    SparseFeature: "sparse",
    DenseFeature: "dense",
    SequenceFeature: "sequence",
    VectorFeature: "vector",
}
_CODES = sorted(kind.code for kind in KINDS.values())


def artifact_of(served: Served) -> Json:
    """Describe what is served."""
    return {
        "name": served.name,
        "digest": served.digest,
        "columns": {place: list(columns) for place, columns in served.columns.items()},
        "tasks": {
            name: {"kind": task.kind, "given": task.given}
            for name, task in served.schema.tasks.items()
        },
    }


def openapi_of(served: Served | None, config: FrontConfig) -> Json:
    """Give the document.

    Args:
        served: What is served; as long as nothing is, columns and tasks are left open.
        config: The limits.
    """
    problem = {"$ref": "#/components/responses/problem"}
    security: list[Json] = [{"bearer": []}] if config.token is not None else []
    document: Json = {
        "openapi": "3.1.0",
        "info": {
            "title": f"RankLoom: {served.name}" if served else "RankLoom",
            "version": "1",
            "description": "Rank candidates for a user. MessagePack has the same members as JSON.",
        },
        "security": security,
        "paths": {
            "/v1/rank": {"post": _rank(problem)},
            "/v1/artifact": {"get": _get("What is served", "Artifact", problem)},
            "/health/live": {
                "get": {**_get("Whether the process runs", "Health", problem), "security": []}
            },
            "/health/ready": {
                "get": {**_get("Whether it can rank", "Health", problem), "security": []}
            },
        },
        "components": {
            "schemas": {**_request_schemas(served, config), **_answer_schemas(served)},
            "responses": {
                "problem": {
                    "description": "Why there is no answer (RFC 9457)",
                    "content": {"application/problem+json": {"schema": _ref("Problem")}},
                }
            },
        },
    }
    if security:
        schemes = {"bearer": {"type": "http", "scheme": "bearer"}}
        document["components"]["securitySchemes"] = schemes
    return document


def _rank(problem: Json) -> Json:
    one_or_several = {"oneOf": [_ref("Request"), _ref("Requests")]}
    # OpenAPI cannot describe MessagePack's values, so only JSON has a schema.
    others: Json = {name: {} for name, media in MEDIA.items() if media != "json"}
    answer = {"anyOf": [_ref("Result"), _ref("Results")]}
    return {
        "operationId": "rank",
        "summary": "Rank candidates for one user, or for several",
        "parameters": [
            {
                "name": "X-Deadline-Ms",
                "in": "header",
                "description": "What is left of the client's time; the smaller of this and "
                "`deadline_ms` counts.",
                "schema": {"type": "number", "exclusiveMinimum": 0, "maximum": MAX_DEADLINE_MS},
            }
        ],
        "requestBody": {
            "required": True,
            "content": {"application/json": {"schema": one_or_several}, **others},
        },
        "responses": {
            "200": {
                "description": "Ranked; of several users, at least one",
                "content": {"application/json": {"schema": answer}},
            },
            "default": problem,
        },
    }


def _get(summary: str, schema: str, problem: Json) -> Json:
    content = {"application/json": {"schema": _ref(schema)}}
    return {
        "operationId": schema.lower() + summary.title().replace(" ", ""),
        "summary": summary,
        "responses": {"200": {"description": summary, "content": content}, "default": problem},
    }


def _request_schemas(served: Served | None, config: FrontConfig) -> Json:
    limits, places = config.limits, _columns(served)
    members = {
        "user": {"type": "object", "properties": places["user"]},
        "context": {"type": ["object", "null"], "properties": places["context"]},
        "candidates": _candidates(places["candidates"], limits.candidates),
        "deadline_ms": {
            "type": ["number", "null"],
            "exclusiveMinimum": 0,
            "maximum": MAX_DEADLINE_MS,
            "description": f"Time that is left. Default: {config.deadline_ms:g}.",
        },
        "top_k": {
            "type": ["integer", "null"],
            "minimum": 1,
            "description": "How many `order` names. Default: all.",
        },
        "id": {
            "type": ["string", "null"],
            "maxLength": MAX_ID_LENGTH,
            "description": "Given back. Printable characters.",
        },
    }
    several = {"type": "array", "minItems": 1, "maxItems": limits.requests}
    return {
        "Request": {
            "type": "object",
            "required": ["user", "candidates"],
            "properties": members,
            "additionalProperties": False,
        },
        "Requests": {
            "type": "object",
            "required": ["requests"],
            "properties": {"requests": {**several, "items": _ref("Request")}},
            "additionalProperties": False,
        },
    }


def _columns(served: Served | None) -> dict[str, Json]:
    """Give place -> column -> what reads it."""
    uses = {} if served is None else _uses(served.schema)
    return {
        place: {
            name: {"description": uses.get((place, name), "")}
            for name in (served.columns.get(place, ()) if served else ())
        }
        for place in ("user", "context", "candidates")
    }


def _candidates(columns: Json, most: int) -> Json:
    values = {"type": "array", "minItems": 1, "maxItems": most}
    by_column = {
        "type": "object",
        "description": "Column -> a value for each candidate",
        "minProperties": 1,
        "properties": {name: {**about, **values} for name, about in columns.items()},
        "additionalProperties": values,
    }
    by_candidate = {
        **values,
        "description": "A mapping of column to value for each candidate",
        "items": {"type": "object", "properties": columns},
    }
    return {"anyOf": [by_column, by_candidate]}


def _answer_schemas(served: Served | None) -> Json:
    text, numbers = {"type": "string"}, {"type": "array", "items": {"type": ["number", "null"]}}
    tasks = list(served.schema.tasks) if served else []
    result = {
        "id": text,
        "digest": {**text, "description": "Of the artifact that scored"},
        "order": {
            "type": "array",
            "items": {"type": "integer", "minimum": 0},
            "description": "Places of the best candidates, the best first",
        },
        "blended": {**numbers, "description": "One a candidate; null is not finite"},
        "scores": {
            "type": "object",
            "properties": dict.fromkeys(tasks, numbers),
            "required": tasks,
            "additionalProperties": numbers,
        },
        "timing_ms": {"type": "object", "additionalProperties": {"type": "number"}},
    }
    problem = {
        "type": {**text, "format": "uri-reference"},
        "title": text,
        "status": {"type": "integer"},
        "code": {"enum": _CODES},
        "detail": text,
        "problems": {"type": "array", "items": text},
        "incident": text,
    }
    failed = {"type": "object", "required": ["problem"], "properties": {"problem": _ref("Problem")}}
    each = {"anyOf": [_ref("Result"), failed]}
    artifact: Json = {name: {} for name in ("name", "digest", "columns", "tasks", "blend")}
    return {
        "Result": {"type": "object", "required": list(result), "properties": result},
        "Results": {
            "type": "object",
            "required": ["results"],
            "properties": {"results": {"type": "array", "items": each}},
        },
        "Problem": {
            "type": "object",
            "required": ["type", "title", "status", "code", "detail"],
            "properties": problem,
        },
        "Artifact": {"type": "object", "required": list(artifact), "properties": artifact},
        "Health": {"type": "object", "required": ["status"], "properties": {"status": text}},
    }


def _uses(schema: Schema) -> dict[tuple[str, str], str]:
    """Give (place, column) -> which features read it."""
    readers: dict[tuple[str, str], list[str]] = {}
    for name, feature in schema.features.items():
        columns = [feature.column or name]
        if isinstance(feature, SparseFeature) and feature.weights:
            columns.append(feature.weights)
        if isinstance(feature, SequenceFeature):
            inner = [one.column for one in schema.id_columns() if one.feature == name]
            columns = [*inner, *(one for one in (feature.time, feature.first_event) if one)]
        for column in columns:
            at = (_PLACES[feature.side], column)
            readers.setdefault(at, []).append(f"{_KINDS[type(feature)]} feature {name}")
    return {at: ", ".join(names) for at, names in readers.items()}


def _ref(name: str) -> Json:
    return {"$ref": f"#/components/schemas/{name}"}
