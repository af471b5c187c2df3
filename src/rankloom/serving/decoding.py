"""Requests decoded for an artifact, as training decoded its log; needs no torch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter

from rankloom.artifact.vocabularies import read_indexes
from rankloom.data.request import RequestDecoder
from rankloom.errors import DataError, RequestError
from rankloom.schema import AnyFeature, AnyTask, Roles, Schema, UnifiedConfig
from rankloom.serving.front.blend import Blend
from rankloom.serving.parts import Parts, take_apart, user_key
from rankloom.serving.request import RankRequest, Served
from rankloom.serving.store.config import StoreConfig
from rankloom.serving.store.door import FeatureDoor
from rankloom.serving.telemetry.oov import oov_counts

VOCABULARIES = "vocabularies.safetensors"
_Features = TypeAdapter(dict[str, AnyFeature])
_Tasks = TypeAdapter(dict[str, AnyTask])


@dataclass(frozen=True)
class Decoded:
    """A request as the compute process takes it."""

    parts: Parts
    """Its columns."""
    user_key: bytes
    """Of the user's values."""
    oov: Mapping[str, int]
    """Feature -> ids that its vocabulary does not have."""


@dataclass(frozen=True)
class Decoding:
    """What decodes requests for an artifact."""

    served: Served
    decoder: RequestDecoder
    blend: Blend
    door: FeatureDoor | None
    """Fills in what clients do not send."""
    examples: tuple[RankRequest, ...]
    """With values of the training log's types."""
    groups: Mapping[str, Sequence[str]]
    """Group -> features, where the artifact has such."""

    @classmethod
    def of(
        cls, offer: Mapping[str, Any], formula: str | None, store: StoreConfig | None
    ) -> Decoding:
        """Make it from what the compute process says of an artifact.

        Args:
            offer: What it says.
            formula: Of the blended score.
            store: Where features are looked up.

        Raises:
            RankLoomError: Its vocabularies are damaged, the formula names other tasks, or the
                store's items do not fit.
        """
        unified = offer["unified"]
        schema = Schema(
            _Features.validate_python(offer["features"]),
            roles=Roles.model_validate(offer["roles"]),
            tasks=_Tasks.validate_python(offer["tasks"]),
            unified=None if unified is None else UnifiedConfig.model_validate(unified),
        )
        indexes = read_indexes(Path(offer["folder"]) / VOCABULARIES, offer["vocabularies"])
        decoder = RequestDecoder(schema, indexes)
        served = Served(offer["name"], offer["digest"], schema, decoder.columns())
        blend = Blend(formula, list(schema.tasks))
        door = None if store is None else FeatureDoor.open(store, schema, indexes)
        examples = tuple(RankRequest(**one) for one in offer["examples"])
        return cls(served, decoder, blend, door, examples, offer["groups"])

    def decode(self, request: RankRequest) -> Decoded:
        """Decode a request.

        Raises:
            RequestError: Columns are missing or values not allowed; all such at once.
        """
        try:
            block = self.decoder.decode_block(request.user, request.candidates, request.context)
        except DataError as error:
            raise RequestError(str(error)) from None
        parts = take_apart(block, self.served.schema)
        return Decoded(parts, user_key(parts), oov_counts(block, self.served.schema))
