"""The parameter formula in each file's header against the built module."""

from __future__ import annotations

import ast
import operator
import re
import sys
from dataclasses import replace
from typing import Any

import pytest
import torch

from rankloom.config import resolve
from rankloom.heads import HEADS
from rankloom.interaction import INTERACTIONS
from rankloom.layers.protocols import FeatureLayout, Layout, SequenceLayout, TokenLayout
from rankloom.schema import Rate
from rankloom.sequence import SEQUENCES
from rankloom.tokenization import TOKENIZATIONS

OPERATORS: dict[type[ast.operator], Any] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
    ast.Pow: operator.pow,
}

FEATURES = Layout(
    features={
        "item": FeatureLayout(width=3, rate=Rate.CANDIDATE),
        "user": FeatureLayout(width=3, rate=Rate.USER),
        "hour": FeatureLayout(width=2, rate=Rate.REQUEST),
    }
)
SAME_WIDTH = Layout(features={k: v for k, v in FEATURES.features.items() if v.width == 3})
TOKENS = Layout(features={}, tokens=TokenLayout(gives="tokens", num_candidate=4, dim=12))
FLAT = Layout(features={}, tokens=TokenLayout(gives="flat", dim=7))
HEAD = Layout(features={}, tasks=("a", "b", "c"), out_dim=5)
HISTORY = SequenceLayout(
    name="history",
    columns={"item": 3, "genre": 2},
    rate=Rate.USER,
    candidate={"item": "item"},
    max_length=6,
    has_times=False,
)
COMPARED = replace(HISTORY, candidate={"item": "item", "genre": "genre"})
CASES: list[tuple[dict[str, Any], str, Any, dict[str, Any]]] = [
    (INTERACTIONS, "linear", FLAT, {}),
    (INTERACTIONS, "mlp", FLAT, {"hidden_dims": (5, 4), "norm": "batch"}),
    (INTERACTIONS, "mlp", FLAT, {"hidden_dims": (5,)}),
    (INTERACTIONS, "dcn_v2", FLAT, {"hidden_dims": (5, 4)}),
    (INTERACTIONS, "dcn_v2", FLAT, {"hidden_dims": (), "rank": 3, "num_experts": 1}),
    (INTERACTIONS, "dcn_v2", FLAT, {"hidden_dims": (5,), "rank": 2, "norm": "layer"}),
    (INTERACTIONS, "dcn_v2", FLAT, {"rank": 2, "expert_activation": "none"}),
    (INTERACTIONS, "rankmixer", TOKENS, {"num_layers": 3, "expansion": 2}),
    (INTERACTIONS, "tokenmixer_large", TOKENS, {"num_layers": 3, "expansion": 1.5}),
    (INTERACTIONS, "tokenmixer_large", TOKENS, {"num_heads": 6, "norm": "post"}),
    (TOKENIZATIONS, "flat", FEATURES, {}),
    (TOKENIZATIONS, "fields", SAME_WIDTH, {}),
    (TOKENIZATIONS, "per_feature", FEATURES, {"token_dim": 5}),
    (TOKENIZATIONS, "semantic_groups", FEATURES, {"rest": "token", "global_token": True}),
    (TOKENIZATIONS, "semantic_groups", FEATURES, {"rest": "token", "hidden_dim": 9}),
    (SEQUENCES, "masked_mean", HISTORY, {}),
    (SEQUENCES, "din", HISTORY, {}),
    (SEQUENCES, "din", HISTORY, {"activation": "sigmoid", "hidden_dims": (4,)}),
    (SEQUENCES, "lmn", COMPARED, {"num_slots": 400}),
    (SEQUENCES, "lmn", replace(COMPARED, features=FEATURES.features), {"num_slots": 400}),
    (SEQUENCES, "solar", COMPARED, {}),
    (SEQUENCES, "solar", COMPARED, {"read": "exact_at_low_rank", "candidates": "set"}),
    (SEQUENCES, "solar", COMPARED, {"dim": 12, "recency": "none", "candidates": "set"}),
    (SEQUENCES, "transformer", COMPARED, {}),
    (SEQUENCES, "transformer", COMPARED, {"num_layers": 3, "expansion": 1, "max_positions": 4}),
    (SEQUENCES, "transformer", HISTORY, {"dim": 12, "num_heads": 3, "read": "newest"}),
    (HEADS, "shared_bottom", HEAD, {"shared_dims": (6,), "hidden_dims": (4, 3)}),
    (HEADS, "shared_bottom", HEAD, {"hidden_dims": (), "norm": "layer"}),
]


def evaluate(formula: str, letters: dict[str, int]) -> float:
    """Evaluate a formula of letters, numbers, + - * / ** and parentheses."""

    def value(node: ast.expr) -> float:
        match node:
            case ast.BinOp(left=left, op=op, right=right):
                return OPERATORS[type(op)](value(left), value(right))  # type: ignore[no-any-return]
            case ast.Name(id=name):
                return letters[name]
            case ast.Constant(value=int(number)):
                return number
        raise AssertionError(ast.dump(node))

    return value(ast.parse(formula, mode="eval").body)


@pytest.mark.parametrize(("table", "kind", "layout", "options"), CASES)
def test_header_gives_the_number_of_parameters(
    table: dict[str, Any], kind: str, layout: Any, options: dict[str, Any]
) -> None:
    cls = resolve(kind, table, path="kind")
    module = cls(cls.Config(**options), layout, generator=torch.Generator().manual_seed(0))
    header = sys.modules[cls.__module__].__doc__ or ""
    found = re.search(
        r"^Cost: (.+) parameters; (.+) multiply-adds per row\.$", header, re.MULTILINE
    )
    assert found
    tokens = getattr(module, "tokens", None) or getattr(layout, "tokens", None)
    letters = {"L": 6}
    letters |= {"T": tokens.num_tokens, "D": tokens.dim} if tokens else {}
    letters |= {"D": layout.width} if isinstance(layout, SequenceLayout) else {}
    letters |= module.cost_letters() if hasattr(module, "cost_letters") else {}
    count = sum(parameter.numel() for parameter in module.parameters())
    assert evaluate(found[1], letters) == count
    assert (evaluate(found[2], letters) > 0) == (count > 0)


def test_every_architecture_is_counted() -> None:
    for table in (INTERACTIONS, TOKENIZATIONS, SEQUENCES, HEADS):
        assert {kind for own, kind, _, _ in CASES if own is table} == set(table)


@pytest.mark.parametrize("table", [INTERACTIONS, TOKENIZATIONS, SEQUENCES, HEADS])
def test_headers_have_five_lines_and_cite_the_paper(table: dict[str, Any]) -> None:
    for kind, spec in table.items():
        cls = resolve(kind, table, path="kind")
        lines = (sys.modules[cls.__module__].__doc__ or "").strip().split("\n")[2:]
        names = [line.partition(":")[0] for line in lines]
        assert names == ["Paper", "Layer", "Differs from the paper", "Cost", "Shapes"], kind
        assert spec.paper is None or spec.paper in lines[0], kind
        undocumented = [name for name, f in cls.Config.model_fields.items() if not f.description]
        assert not undocumented, kind
