"""Triton kernels against the tiles: on a GPU, or interpreted where Triton is installed without."""

from __future__ import annotations

import os

import pytest
import torch

pytest.importorskip("triton", reason="Triton is not installed: its kernels cannot be run here")
if not torch.cuda.is_available():
    os.environ["TRITON_INTERPRET"] = "1"  # read when the kernels are first imported

from rankloom.ops.attention.paths import largest_difference


def test_kernels_equal_the_tiles() -> None:
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    # Results and gradients are sums of up to 150 products in fp32, in another order.
    assert largest_difference(device) < 1e-3
