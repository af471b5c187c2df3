"""What a benchmark ran on: the machine and the versions, without names, addresses or paths."""

from __future__ import annotations

import os
import platform
from importlib import metadata
from pathlib import Path

import torch

FLAGS_OF_INTEREST = ("avx2", "avx512f", "avx512_bf16", "avx512_vnni", "amx_bf16", "amx_int8")
PACKAGES = ("rankloom", "torch", "numpy", "pyarrow", "pydantic", "safetensors")


def describe_machine() -> dict[str, object]:
    """Describe processor, cores, memory and, where there is one, the GPU.

    Returns:
        `cpu` (model name), `cores` (those this process may use), `torch_threads`, `memory_gib`,
        `flags` (of `FLAGS_OF_INTEREST`, those the processor has), `gpu` (name or None), `system`.
    """
    cpu = _cpu_info()
    flags = set(cpu.get("flags", cpu.get("Features", "")).split())
    return {
        "cpu": cpu.get("model name", platform.machine()),
        "cores": len(os.sched_getaffinity(0))
        if hasattr(os, "sched_getaffinity")
        else os.cpu_count(),
        "torch_threads": torch.get_num_threads(),
        "memory_gib": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30, 1),
        "flags": [flag for flag in FLAGS_OF_INTEREST if flag in flags],
        "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
        "system": f"{platform.system()} {platform.machine()}",
    }


def machine_name(machine: dict[str, object]) -> str:
    """Name the parts of a machine that decide its speed: rows are comparable when it is equal."""
    gpu = f", {machine['gpu']}" if machine["gpu"] else ""
    units = "+".join(machine["flags"])  # type: ignore[arg-type]
    return f"{machine['cpu']} ({units}), {machine['cores']} cores{gpu}"


def describe_versions() -> dict[str, str]:
    """Give the version of Python and of each of `PACKAGES` that is installed."""
    versions = {"python": platform.python_version()}
    for package in PACKAGES:
        try:
            versions[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            continue
    return versions


def has_bf16_units() -> bool:
    """Tell whether bf16 matmuls run on units of their own; elsewhere they are emulated, slowly."""
    if torch.cuda.is_available():
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    flags = _cpu_info().get("flags", "").split()
    return "amx_bf16" in flags or "avx512_bf16" in flags


def _cpu_info() -> dict[str, str]:
    """Read the first processor's fields of /proc/cpuinfo; empty where there is none."""
    path = Path("/proc/cpuinfo")
    if not path.exists():
        return {}
    first = path.read_text(encoding="utf-8", errors="replace").split("\n\n", 1)[0]
    pairs = (line.split(":", 1) for line in first.splitlines() if ":" in line)
    return {name.strip(): value.strip() for name, value in pairs}
