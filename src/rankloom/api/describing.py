"""Describe a model: parameters, FLOPs and bytes per row by part, table memory."""

from __future__ import annotations

from collections.abc import Mapping

from rankloom.api.run import Run
from rankloom.errors import ConfigError
from rankloom.hoist import Decision, hoist
from rankloom.hoist.cost import cost_by_rate
from rankloom.models import Model
from rankloom.models.cost import ModelCost, model_cost
from rankloom.models.example import example_batch
from rankloom.schema import RATE_OF_SIDE, UNIFIED, Rate

_RATES = (Rate.USER, Rate.REQUEST, Rate.CANDIDATE)


def model_line(run: Run, model: Model) -> str:
    """Give one line on a model: tokens, width, depth, size and work per row."""
    cost = model_cost(model)
    tokens = model.network.tokenization.tokens
    form = f"{tokens.gives} D={tokens.dim}"
    if tokens.gives == "tokens":
        form = (
            f"T={tokens.num_tokens} ({tokens.num_user} user, {tokens.num_request} request, "
            f"{tokens.num_candidate} candidate) D={tokens.dim}"
        )
    return (
        f"model     {run.config.model.interaction.kind}  {form} "
        f"M={len(model.network.interaction.layers)}   {scaled(cost.parameters).strip()} dense + "
        f"{scaled(cost.table_parameters).strip()} table parameters   "
        f"{scaled(cost.flops_per_row)}FLOP/row"
    )


def describe(run: Run, model: Model) -> str:
    """Give the table of a model's parts and tables."""
    cost = model_cost(model)
    lines = [model_line(run, model), "", *_part_lines(cost), "", *_table_lines(cost)]
    lines += _unified_lines(run)
    by_rate: dict[Rate, list[str]] = {}
    for name, feature in run.schema.features.items():
        mark = " (training only)" if name in run.schema.training_only else ""
        by_rate.setdefault(RATE_OF_SIDE[feature.side], []).append(name + mark)
    lines += ["", "features by rate"]
    lines += [f"  {rate.name.lower():9} {', '.join(by_rate[rate])}" for rate in sorted(by_rate)]
    return "\n".join(lines)


def describe_request(model: Model, num_candidates: int) -> str:
    """Give the table of what scoring one request costs at each rate, before and after hoisting.

    Args:
        model: Is put into evaluation mode.
        num_candidates: N.

    Raises:
        ConfigError: `num_candidates` is not positive.
        HoistError: The network cannot be divided by rate.
    """
    if num_candidates < 1:
        raise ConfigError(f"candidates: must be 1 or more. Got {num_candidates}.")
    model.train(False)
    hoisted = hoist(model.network, model.embedder(example_batch(model)).inputs)
    batch = example_batch(model, rows_of_request=(num_candidates,), full_histories=True)
    cost = cost_by_rate(model.network, hoisted, model.embedder(batch).inputs)
    lines = [
        f"one request of {num_candidates} candidates, hoisted",
        *_rate_lines("FLOPs", {p.name: (p.plain_flops, p.flops) for p in cost.parts}),
        *_rate_lines("bytes", {p.name: (p.plain_bytes, p.bytes) for p in cost.parts}),
    ]
    lines.append(
        f"hoisting saves {cost.hoisted_share:.1%} of the FLOPs; state: "
        + ", ".join(
            f"{scaled(size)}B {rate.name.lower()}" for rate, size in cost.state_bytes.items()
        )
    )
    if cost.flops_at(Rate.REQUEST) > cost.flops_at(Rate.USER):
        lines.append("most of the state is the request's: not cacheable across requests")
    lines += _decision_lines(hoisted.decisions)
    return "\n".join(lines)


def _rate_lines(title: str, parts: Mapping[str, tuple[float, Mapping[Rate, float]]]) -> list[str]:
    """Give a table of what each part costs, before and at each rate after hoisting."""
    rows = {name: [plain, *(at.get(r, 0.0) for r in _RATES)] for name, (plain, at) in parts.items()}
    rows["sum"] = [sum(column) for column in zip(*rows.values(), strict=True)]
    width = max(len(title), *map(len, rows))
    heads = "  ".join(f"{head:>10}" for head in ("plain", "user", "request", "candidates"))
    return [f"{title:{width}}  {heads}"] + [
        f"{name:{width}}  " + "  ".join(f"{scaled(one):>10}" for one in counts)
        for name, counts in rows.items()
    ]


def _decision_lines(decisions: list[Decision]) -> list[str]:
    """Say which products were divided by rate, and which not and why."""
    return [
        f"  {'divided' if one.is_done else 'whole  '} {one.where or 'network'} ({one.node}): "
        f"{one.reason}"
        for one in decisions
    ]


def _part_lines(cost: ModelCost) -> list[str]:
    width = max(len(part.name) for part in cost.parts)
    lines = [f"{'part':{width}}  {'parameters':>12}  {'FLOP/row':>12}  {'bytes/row':>12}"]
    lines += [
        f"{part.name:{width}}  {part.parameters:>12,}  {part.flops_per_row:>12,.0f}  "
        f"{part.bytes_per_row:>12,.0f}"
        for part in cost.parts
    ]
    total = sum(part.bytes_per_row for part in cost.parts)
    lines.append(
        f"{'sum':{width}}  {cost.parameters:>12,}  {cost.flops_per_row:>12,.0f}  {total:>12,.0f}"
    )
    return lines


def _unified_lines(run: Run) -> list[str]:
    """Say which tables the unified one keeps."""
    kept = run.schema.unified_tables()
    if not kept:
        return []
    each = [f"{name}{f' ({count} lookups)' if count > 1 else ''}" for name, count in kept.items()]
    return [f"{UNIFIED} keeps {', '.join(each)}"]


def _table_lines(cost: ModelCost) -> list[str]:
    if not cost.tables:
        return ["no tables"]
    width = max(len("table"), *(len(table.name) for table in cost.tables))
    lines = [f"{'table':{width}}  {'rows':>12}  {'width':>6}  {'memory':>10}"]
    lines += [
        f"{table.name:{width}}  {table.num_embeddings:>12,}  {table.embedding_dim:>6}  "
        f"{scaled(table.num_bytes):>9}B"
        for table in cost.tables
    ]
    total = sum(table.num_bytes for table in cost.tables)
    lines.append(f"{'sum':{width}}  {'':>12}  {'':>6}  {scaled(total):>9}B")
    return lines


def scaled(value: float) -> str:
    """Write 1.1e6 as `1.10 M`, ready for a unit."""
    for limit, letter in ((1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k")):
        if value >= limit:
            return f"{value / limit:.3g} {letter}"
    return f"{value:.3g} "
