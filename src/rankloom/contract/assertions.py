"""The assertions themselves. Each takes a `Subject` and raises AssertionError when it fails.

Shapes: R requests, B rows, K tasks.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.testing import assert_close

from rankloom.artifact.program_file import read_back
from rankloom.contract.batches import flatten, take_rows
from rankloom.contract.cost_line import compute, cost_formulas
from rankloom.contract.planted import planted_auc, train
from rankloom.contract.subject import ROWS_OF_REQUEST, Subject
from rankloom.data.batch import Batch
from rankloom.hoist import hoist
from rankloom.hoist.verify import check_border, check_equal, in_fp64
from rankloom.layers.protocols import EventInputs, Inputs
from rankloom.models import Model
from rankloom.models.cost import count_parameters

LINEAR_MARGIN = 0.15
"""AUC by which an architecture must beat logistic regression on the planted cross, which that
cannot see at all."""


def gives_a_finite_logit_per_row_and_task(subject: Subject) -> None:
    """(B, K) float32, finite also for extreme numbers and table rows."""
    model, batch = subject.build(), subject.batch()
    logits = subject.logits(model, batch)
    assert logits.shape == (batch.num_rows, len(subject.schema.tasks)), logits.shape
    assert logits.dtype == torch.float32, logits.dtype
    assert logits.isfinite().all(), "logits are not finite"
    for table in model.embedder.tables().values():
        table.mul_(1e4)
    numbers = {name: value * 1e6 for name, value in batch.numbers.items()}
    extreme = subject.logits(model, replace(batch, numbers=numbers))
    assert extreme.isfinite().all(), "logits are not finite for extreme inputs"


def moves_every_parameter(subject: Subject) -> None:
    """Each parameter has changed after three steps."""
    model = subject.build()
    before = {name: value.detach().clone() for name, value in model.network.named_parameters()}
    batches = iter([subject.batch(seed=seed) for seed in range(3)])
    train(model, batches, steps=3)
    still = [n for n, value in model.network.named_parameters() if torch.equal(value, before[n])]
    assert not still, f"never moved: {', '.join(still)}"


def has_the_parameters_of_its_cost_line(subject: Subject) -> None:
    """The parameter count is what the header's formula gives."""
    module = subject.module(subject.build())
    formula, _ = cost_formulas(subject.choice.cls)
    expected = compute(formula, _letters(subject, module))
    assert count_parameters(module) == expected, (
        f"{count_parameters(module)} parameters, `Cost:` says {expected}"
    )


def scores_rows_independently(subject: Subject) -> None:
    """Changing one row's item changes that row only; its request's, with `candidates: set`."""
    model, batch = subject.build(), subject.batch()
    before = subject.logits(model, batch)
    item = batch.ids["item"]
    assert isinstance(item, Tensor)
    changed = item.clone()
    changed[1] = (changed[1] + 7) % subject.table_sizes["item"]
    after = subject.logits(model, replace(batch, ids={**batch.ids, "item": changed}))
    others = torch.arange(batch.num_rows) != 1
    if model.network.candidates == "set":
        others = batch.request_index != batch.request_index[1]
    assert_close(after[others], before[others], rtol=0, atol=1e-6)
    assert not torch.allclose(after[1], before[1], rtol=0, atol=1e-7), "row 1 did not change"


def does_not_see_padding(subject: Subject) -> None:
    """More padding of the histories, and more empty places of candidates, change nothing."""
    model = subject.build().train(False)
    inputs = _inputs(model, subject.batch())
    padded = _pad_places(inputs, 2)._replace(
        sequences={name: _pad(history, 5) for name, history in inputs.sequences.items()}
    )
    with torch.no_grad():
        first, second = model.network(inputs).logits, model.network(padded).logits
    for task in first:
        # Sums over a longer history add zeros in another order.
        assert_close(second[task], first[task], rtol=1e-5, atol=1e-6)


def scores_candidates_apart(subject: Subject) -> None:
    """Permuting a request's candidates permutes its logits; removing some changes no other.

    With `candidates: set`, removing some may change the others.
    """
    model = subject.build()
    batch = subject.batch(rows_of_request=(6,))
    together = subject.logits(model, batch)
    order = torch.tensor([4, 2, 0, 5, 1, 3])
    assert_close(subject.logits(model, take_rows(batch, order)), together[order], atol=1e-6, rtol=0)
    if model.network.candidates == "set":
        return
    alone = [subject.logits(model, take_rows(batch, torch.tensor([n]))) for n in range(6)]
    # A matmul's rows differ in the last bits with the number of rows.
    assert_close(torch.cat(alone), together, atol=1e-5, rtol=1e-5)


def is_the_same_grouped_and_flat(subject: Subject) -> None:
    """A request's candidates score as they do with the request's columns repeated row by row.

    With `candidates: set` they need not: row by row, every candidate is alone.
    """
    model, batch = subject.build(), subject.batch()
    if model.network.candidates == "set":
        return
    assert_close(
        subject.logits(model, flatten(batch)), subject.logits(model, batch), atol=1e-6, rtol=1e-5
    )


def exports(subject: Subject) -> None:
    """`torch.export` with free numbers of requests and rows gives the same outputs."""
    model = subject.build().train(False)
    inputs = _inputs(model, subject.batch())
    program = torch.export.export(
        model.network, (inputs,), dynamic_shapes=(_dynamic_shapes(inputs),), strict=False
    )
    other_inputs = _inputs(model, subject.batch(rows_of_request=(2, 5, 1, 3, 2), seed=1))
    with torch.no_grad():
        captured, plain = program.module()(other_inputs), model.network(other_inputs)
    for task, logits in plain.logits.items():
        assert_close(captured.logits[task], logits, atol=1e-5, rtol=1e-5)


def is_the_same_hoisted(subject: Subject) -> None:
    """The hoisted programs give the plain scores; nothing held for a user has a candidate in it.

    Written and read back, as an artifact holds them, they give the same.
    """
    model = subject.build().train(False)
    network = model.network.double()
    shapes = (ROWS_OF_REQUEST, (2, 5, 1, 3, 2), (1,), (9,))
    batches = [
        in_fp64(_inputs(model, subject.batch(rows_of_request=rows, seed=seed)))
        for seed, rows in enumerate(shapes)
    ]
    hoisted = hoist(network, batches[0])
    # In fp64, sums in another order differ in the last of 16 digits.
    check_equal(network, hoisted, batches, tolerance=1e-10)
    check_border(network, hoisted, batches[0])
    again = replace(hoisted, programs=read_back(hoisted.programs))
    check_equal(network, again, batches, tolerance=1e-10)


def keeps_its_outputs_through_a_state_dict(subject: Subject) -> None:
    """A model of another seed with the first one's weights gives the first one's outputs."""
    first, second = subject.build(seed=0), subject.build(seed=1)
    batch = subject.batch()
    assert not torch.equal(subject.logits(first, batch), subject.logits(second, batch))
    second.network.load_state_dict(first.network.state_dict())
    for name, table in second.embedder.tables().items():
        table.copy_(first.embedder.tables()[name])
    assert torch.equal(subject.logits(first, batch), subject.logits(second, batch))


def reads_its_config_back(subject: Subject) -> None:
    """Config -> plain values -> config is the identity."""
    values = subject.choice.to_dict()
    again = type(subject.choice.config).model_validate(
        {k: v for k, v in values.items() if k in type(subject.choice.config).model_fields}
    )
    assert again == subject.choice.config


def depends_on_its_seed_alone(subject: Subject) -> None:
    """The same seed gives the same weights, whatever was drawn before."""
    first = subject.build(seed=3).network.state_dict()
    torch.rand(7)
    second = subject.build(seed=3).network.state_dict()
    different = [name for name in first if not torch.equal(first[name], second[name])]
    assert not different, f"differ between builds of one seed: {', '.join(different)}"


def learns_a_cross(subject: Subject) -> None:
    """After 150 steps it beats logistic regression on a planted cross by 0.15 of AUC.

    A linear interaction (`beats_linear = False`) must stay within 0.05 of chance instead.
    """
    reached = planted_auc(subject)
    if getattr(subject.choice.cls, "beats_linear", True):
        linear = planted_auc(Subject.in_slot("interaction", "linear"))
        assert reached > linear + LINEAR_MARGIN, f"AUC {reached:.3f}, linear {linear:.3f}"
    else:
        assert abs(reached - 0.5) < 0.05, f"AUC {reached:.3f} of a linear model on a cross"


def runs_under_autocast(subject: Subject) -> None:
    """bf16 autocast stays within 0.05 of the logits' scale and gives finite gradients."""
    model, batch = subject.build(), subject.batch()
    plain = subject.logits(model, batch)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        reduced = subject.logits(model, batch).float()
    scale = plain.abs().max().clamp(min=1)
    # bf16 keeps 8 bits, 0.4 % a rounding; a few layers of them stay well below 5 %.
    assert ((reduced - plain).abs().max() / scale) < 0.05, "differs too much under autocast"


def compiles(subject: Subject) -> None:
    """`torch.compile` gives the same outputs."""
    model = subject.build().train(False)
    inputs = _inputs(model, subject.batch())
    with torch.no_grad():
        plain, compiled = model.network(inputs), torch.compile(model.network)(inputs)
    for task, logits in plain.logits.items():
        assert_close(compiled.logits[task], logits, atol=1e-5, rtol=1e-5)


@torch.no_grad()
def _inputs(model: Model, batch: Batch) -> Inputs:
    """Embed a batch, with nothing that requires a gradient."""
    return model.embedder(batch).inputs


def _pad(history: EventInputs, places: int) -> EventInputs:
    """Add places on the left, filled with numbers that must not matter."""
    pad = nn.functional.pad
    return EventInputs(
        pad(history.events, (0, 0, places, 0), value=3.0),
        pad(history.mask, (places, 0), value=False),
        {
            key: value if value.dim() == 1 else pad(value, (places, 0), value=5.0)
            for key, value in history.times.items()
        },
    )


def _pad_places(inputs: Inputs, places: int) -> Inputs:
    """Add empty places for candidates to every request."""
    assert inputs.slots is not None
    assert inputs.slot_of_row is not None
    width, of_row = inputs.slots.shape[1], inputs.slot_of_row
    slots = nn.functional.pad(inputs.slots, (0, places), value=len(of_row))
    moved = of_row // width * (width + places) + of_row % width
    return inputs._replace(slots=slots, slot_of_row=moved)


def _letters(subject: Subject, module: nn.Module) -> dict[str, float]:
    """Give what a `Cost:` line may name: config fields, T, D, M, and the class's own letters."""
    letters: dict[str, float] = {
        name: float(value)
        for name, value in subject.choice.config
        if isinstance(value, (bool, int, float))
    }
    layout = getattr(subject.build().network.tokenization, "tokens", None)
    if layout is not None and subject.slot in {"interaction", "tokenization"}:
        letters |= {"T": layout.num_tokens, "D": layout.dim}
    if subject.slot == "sequence":
        letters["D"] = subject.build().embedder.layout().sequences["history"].width
    letters["M"] = len(getattr(module, "layers", []))
    own: Callable[[], dict[str, float]] = getattr(module, "cost_letters", dict)
    return letters | own()


def _dynamic_shapes(inputs: Inputs) -> object:
    """Say that R and B are free; the padded length is fixed."""
    requests, rows = torch.export.Dim("R", min=2), torch.export.Dim("B", min=2)
    num_requests = len(next(iter(inputs.sequences.values())).mask)

    def first(value: Tensor) -> Any:
        return {0: requests if len(value) == num_requests else rows}

    return Inputs(
        features={name: first(value) for name, value in inputs.features.items()},
        sequences={
            name: EventInputs(
                first(h.events), first(h.mask), {k: first(v) for k, v in h.times.items()}
            )
            for name, h in inputs.sequences.items()
        },
        ids={},
        request_index=first(inputs.request_index),
        slots=cast("Any", {0: requests, 1: torch.export.Dim.AUTO}),
        slot_of_row=first(inputs.request_index),
    )


ASSERTIONS: dict[str, Callable[[Subject], None]] = {
    one.__name__.replace("_", " "): one
    for one in (
        gives_a_finite_logit_per_row_and_task,
        moves_every_parameter,
        has_the_parameters_of_its_cost_line,
        scores_rows_independently,
        does_not_see_padding,
        scores_candidates_apart,
        is_the_same_grouped_and_flat,
        exports,
        is_the_same_hoisted,
        keeps_its_outputs_through_a_state_dict,
        reads_its_config_back,
        depends_on_its_seed_alone,
        learns_a_cross,
        runs_under_autocast,
    )
}
"""What -> the assertion, in the order in which they are easiest to mend."""

SLOW_ASSERTIONS: dict[str, Callable[[Subject], None]] = {"compiles": compiles}
"""Those that take more than some seconds."""
