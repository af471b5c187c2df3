"""What the scheduler is for, in virtual time: the same on every machine."""

from __future__ import annotations

from functools import cache
from typing import Any

import pytest
from benchmarks import serving_simulation
from benchmarks.harness import Cell
from benchmarks.serving_simulation import POLICIES
from benchmarks.simulated_server import (
    MACHINES,
    CreditScheduler,
    draw_arrivals,
    simulate,
)

from rankloom.serving.scheduling.config import SchedulerConfig
from rankloom.serving.scheduling.scheduler import Scheduler
from rankloom.serving.scheduling.work import Ask, CandidateWork

CPU = MACHINES["cpu"]


@cache
def measured(policy: str, load: float, machine: str = "cpu") -> dict[str, Any]:
    options = {"machine": machine, "load": load, "policy": policy, "requests": 1500}
    return serving_simulation.run_cell(Cell(policy, 0, options))


def test_streams_have_the_load_they_are_drawn_for_and_are_the_same_again() -> None:
    arrivals = draw_arrivals(CPU, load=0.5, count=3000, seed=1)
    assert arrivals == draw_arrivals(CPU, load=0.5, count=3000, seed=1)
    assert arrivals != draw_arrivals(CPU, load=0.5, count=3000, seed=2)
    work_s = sum(
        CPU.batch_s(one.ask.num_candidates, one.ask.num_candidates * one.ask.num_events, 1)
        + (0.0 if one.has_state else CPU.user_s(one.ask.num_events))
        for one in arrivals
    )
    assert work_s / arrivals[-1].ask.arrived_s == pytest.approx(0.5, rel=0.05)


def test_at_low_load_hardly_anything_is_refused_or_late() -> None:
    low = measured("full", 0.3)
    assert low["refused_share"] < 0.02
    assert low["late_share_of_admitted"] < 0.005


def test_earliest_deadline_first_alone_collapses_under_overload() -> None:
    assert measured("edf", 2.0)["in_time_share"] < 0.05
    assert measured("fifo", 2.0)["in_time_share"] < 0.05
    assert measured("edf_reject", 2.0)["in_time_share"] > 0.5


@pytest.mark.parametrize("load", [2.0, 5.0])
def test_rejecting_by_deadline_beats_rejecting_in_order_of_arrival(load: float) -> None:
    edf, fifo = measured("edf_reject", load), measured("fifo_reject", load)
    assert edf["goodput_per_s"] > 1.05 * fifo["goodput_per_s"]


@pytest.mark.parametrize("machine", ["cpu", "device"])
@pytest.mark.parametrize("load", [2.0, 5.0])
def test_under_overload_admitted_requests_are_in_time(machine: str, load: float) -> None:
    assert measured("full", load, machine)["failed_share_of_admitted"] < 0.02


def test_goodput_does_not_fall_with_the_load() -> None:
    goodput = [measured("full", load)["goodput_per_s"] for load in (0.9, 2.0, 5.0)]
    assert goodput[1] > goodput[0]
    assert goodput[2] > 0.9 * goodput[1]


@pytest.mark.parametrize("load", [2.0, 5.0])
def test_booking_helps_near_deadlines_at_no_loss(load: float) -> None:
    without, with_booking = measured("edf_reject", load), measured("booking", load)
    near = "20 ms"
    assert with_booking["in_time_share_of"][near] > 1.3 * without["in_time_share_of"][near]
    assert with_booking["goodput_per_s"] > without["goodput_per_s"]
    assert with_booking["fairness"] > without["fairness"]


def test_batches_pay_where_their_overhead_is_large() -> None:
    batching, alone = (measured(one, 2.0, "device") for one in ("batching", "edf_reject"))
    assert batching["goodput_per_s"] > 1.2 * alone["goodput_per_s"]
    assert batching["requests_per_batch"] > 1.5


def test_short_pieces_help_near_deadlines() -> None:
    cut, whole = measured("micro_batches", 0.9), measured("edf_reject", 0.9)
    assert cut["in_time_share_of"]["20 ms"] > whole["in_time_share_of"]["20 ms"]


def test_the_margin_follows_the_noise() -> None:
    arrivals = draw_arrivals(CPU, load=1.5, count=1500, seed=0)
    margins = []
    for noise in (0.05, 0.4):
        scheduler = Scheduler(SchedulerConfig())
        fates, _ = simulate(scheduler, arrivals, CPU, noise=noise)
        margins.append(scheduler.load(0.0).margin * scheduler.costs.batch.deviation)
        # Once costs are learned and the thread counts as busy.
        admitted = [one for one in fates[500:] if one.end != "refused"]
        assert len(admitted) > 500
        assert sum(one.end != "in time" for one in admitted) < 0.02 * len(admitted)
    assert margins[1] > 1.5 * margins[0]


def test_credits_serve_by_urgency() -> None:
    """Slack rates 2 and 4, so weights 1 and 1/2: pieces are served two to one."""
    config = SchedulerConfig(
        **{**POLICIES["edf"], "max_micro_batch_ms": 2.0, "max_slack_share": 0.0},
        guess_batch_ms=0.5,
        guess_candidate_us=1.0,
    )
    scheduler = CreditScheduler(config)
    for key, deadline_s in enumerate((2.0, 4.0)):
        ask = Ask(
            key=key,
            arrived_s=0.0,
            deadline_s=deadline_s,
            num_candidates=10**6,
            num_events=0,
            user_key=key,
            group="g",
        )
        scheduler.submit(ask, 0.0, has_state=True)
    served = {0: 0, 1: 0}
    for _ in range(60):
        work = scheduler.next(0.0).work
        assert isinstance(work, CandidateWork)
        for one in work.slices:
            served[one.key] += 1
        seconds = 0.5e-3 + 1e-6 * sum(one.stop - one.start for one in work.slices)
        scheduler.finished(work, 0.0, seconds)
    assert served[0] / served[1] == pytest.approx(2.0, abs=0.1)


def test_the_summary_says_what_the_parts_are_worth() -> None:
    rows = [
        {"variant": f"cpu 2x {policy}", "repeat": 0, "measured": measured(policy, 2.0)}
        for policy in ("edf_reject", "full", "ladder")
    ]
    summary = serving_simulation.summarise(rows)
    worth = summary["worth"]["cpu 2x"]
    full, ladder = rows[1]["measured"], rows[2]["measured"]
    assert worth["ladder_over_full"] == ladder["goodput_per_s"] / full["goodput_per_s"]
    fewer = ladder["goodput_per_s"] - ladder["whole_per_s"]
    assert worth["ladder_break_even"] * fewer + ladder["whole_per_s"] == pytest.approx(
        full["goodput_per_s"]
    )
    assert summary["variants"].keys() == {row["variant"] for row in rows}


def test_every_policy_is_planned_at_every_load() -> None:
    cells = serving_simulation.planned_cells(serving_simulation.SETTINGS)
    assert len({cell.id for cell in cells}) == len(cells) == 3 * len(POLICIES) * (6 + 3)
