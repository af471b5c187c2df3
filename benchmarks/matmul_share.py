"""TokenMixer-Large's share of the machine's own matmul rate, in scoring and in training.

Each repeat interleaves a large square product with forward passes and with training steps of the
network (no embedding), and gives the FLOPs counted by torch over the median time, over the rate of
the product in the same repeat. The profile lists where a step's time goes.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch

from benchmarks.harness import Cell, Row, spread_by_variant
from rankloom.interaction.tokenmixer_large import TokenMixerLarge, TokenMixerLargeConfig
from rankloom.layers.protocols import Layout, TokenLayout, Tokens, run_layers
from rankloom.ops.device import autocast_for, choose_device, choose_precision, matmul_rate
from rankloom.ops.flops import flop_counter

SETTINGS: dict[str, Any] = {
    "dims": [256, 768],
    "num_tokens": 16,
    "batch": 2048,
    "num_layers": 2,
    "expansion": 1.0,
    "device": "auto",
    "precision": "auto",
    "repeats": 3,
    "seconds": 2.0,
}


def planned_cells(settings: Mapping[str, Any]) -> list[Cell]:
    """One cell for each width and mode, `repeats` times."""
    shared = {key: value for key, value in settings.items() if key not in {"dims", "repeats"}}
    return [
        Cell(f"D={dim} {mode}", repeat, {**shared, "dim": dim, "mode": mode})
        for repeat in range(settings["repeats"])
        for dim in settings["dims"]
        for mode in ("scoring", "training")
    ]


def run_cell(cell: Cell) -> dict[str, Any]:
    """Time one width in one mode beside the machine's own product."""
    options = cell.options
    device = choose_device(options["device"])
    precision = choose_precision(options["precision"], device)
    call = _call(options, device, precision)
    call()
    with flop_counter() as counter:
        call()
    rates = [matmul_rate(precision, device)]
    times: list[float] = []
    while sum(times) < options["seconds"] or len(times) < 3:
        times.append(_timed(call, device))
        if len(times) % 3 == 0:
            rates.append(matmul_rate(precision, device, seconds=0.1))
    flops = counter.get_total_flops()
    median = sorted(times)[len(times) // 2]
    peak = max(rates)
    return {
        "precision": precision,
        "flops": flops,
        "median_s": median,
        "best_s": min(times),
        "calls": len(times),
        "flops_per_s": flops / median,
        "matmul_flops_per_s": peak,
        "matmul_rates": rates,
        "share": flops / median / peak,
        "profile": _profile(call),
    }


def summarise(rows: Sequence[Row]) -> dict[str, Any]:
    """Median share and its spread for each width and mode."""
    return spread_by_variant(rows, ["share", "flops_per_s", "matmul_flops_per_s"])


def _call(options: Mapping[str, Any], device: torch.device, precision: Any) -> Callable[[], None]:
    tokens, dim = options["num_tokens"], options["dim"]
    layout = Layout(features={}, tokens=TokenLayout(gives="tokens", num_candidate=tokens, dim=dim))
    config = TokenMixerLargeConfig(num_layers=options["num_layers"], expansion=options["expansion"])
    generator = torch.Generator().manual_seed(0)
    network = TokenMixerLarge(config, layout, generator=generator).to(device)
    x = torch.randn(options["batch"], tokens, dim, generator=generator).to(device)
    none = x[:, :0]

    def scoring() -> None:
        with torch.inference_mode(), autocast_for(precision, device):
            run_layers(network, Tokens(none, none, x)).readout()

    def training() -> None:
        network.zero_grad(set_to_none=True)
        # The tokens come from a tokenization with parameters, so their gradient is computed too.
        x.requires_grad_()
        x.grad = None
        with autocast_for(precision, device):
            out = run_layers(network, Tokens(none, none, x)).readout()
        out.float().square().mean().backward()

    network.train(options["mode"] == "training")
    return training if options["mode"] == "training" else scoring


def _timed(call: Callable[[], None], device: torch.device) -> float:
    if device.type == "cuda":
        torch.cuda.synchronize()
    start = time.perf_counter()
    call()
    if device.type == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter() - start


def _profile(call: Callable[[], None]) -> dict[str, float]:
    """Give the share of one call's time by operation, the ten largest."""
    with torch.profiler.profile() as profile:
        call()
    averages = profile.key_averages()
    total = sum(one.self_cpu_time_total for one in averages)
    largest = sorted(averages, key=lambda one: -one.self_cpu_time_total)[:10]
    return {one.key: round(one.self_cpu_time_total / total, 4) for one in largest}
