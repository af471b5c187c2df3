"""Device and precision: what this machine is good at, and how fast its matmul is."""

from __future__ import annotations

import contextlib
import time
from typing import Any, Literal

import torch

from rankloom.errors import ConfigError

Precision = Literal["fp32", "bf16"]


def choose_device(wanted: Literal["auto", "cpu", "cuda"]) -> torch.device:
    """Give the device that a run file asks for.

    Raises:
        ConfigError: cuda is asked for and there is none.
    """
    if wanted == "cuda" and not torch.cuda.is_available():
        raise ConfigError("training.device: this machine has no CUDA device. Use auto or cpu.")
    if wanted == "auto":
        wanted = "cuda" if torch.cuda.is_available() else "cpu"
    return torch.device(wanted)


def has_bf16_units(device: torch.device) -> bool:
    """Whether a matmul in bf16 is computed by units made for it, rather than emulated."""
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    capabilities = torch.cpu.get_capabilities()
    return any(capabilities.get(name, False) for name in ("amx_bf16", "avx512_bf16", "bf16"))


def choose_precision(wanted: Literal["auto", "fp32", "bf16"], device: torch.device) -> Precision:
    """Give the precision of matmuls.

    Raises:
        ConfigError: bf16 is asked for where it is emulated, hundreds of times slower than fp32.
    """
    native = has_bf16_units(device)
    if wanted == "bf16" and not native:
        raise ConfigError(
            f"training.precision: this {device.type} has no bf16 units and would emulate them, "
            "hundreds of times slower than fp32. Use auto or fp32."
        )
    return "bf16" if wanted == "bf16" or (wanted == "auto" and native) else "fp32"


def autocast_for(
    precision: Precision, device: torch.device
) -> contextlib.AbstractContextManager[Any]:
    """Give the context in which a network runs at a precision."""
    if precision == "fp32":
        return contextlib.nullcontext()
    return torch.autocast(device.type, dtype=torch.bfloat16)


def matmul_rate(precision: Precision, device: torch.device, *, seconds: float = 0.3) -> float:
    """Measure this machine's own matmul rate, in FLOP/s: the best of some large products.

    Args:
        precision: Of the factors.
        device: Where.
        seconds: About how long to measure.
    """
    n = 8192 if device.type == "cuda" else 1024
    dtype = torch.bfloat16 if precision == "bf16" else torch.float32
    generator = torch.Generator().manual_seed(0)
    a, b = (torch.randn(n, n, generator=generator).to(device, dtype) for _ in range(2))
    out = torch.empty(n, n, device=device, dtype=dtype)
    best, began = float("inf"), time.perf_counter()
    torch.mm(a, b, out=out)
    while time.perf_counter() - began < seconds or best == float("inf"):
        synchronize(device)
        start = time.perf_counter()
        torch.mm(a, b, out=out)
        synchronize(device)
        best = min(best, time.perf_counter() - start)
    return 2 * n**3 / best


def synchronize(device: torch.device) -> None:
    """Wait until a device has done what it was given."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
