"""Attention counts where it runs as one operation, on the CPU too."""

from __future__ import annotations

import torch
import torch.nn.functional as F

from rankloom.ops.flops import flop_counter


def test_attention_counts_as_its_two_products() -> None:
    query, key = torch.ones(2, 3, 5, 8), torch.ones(2, 3, 7, 8)
    with flop_counter() as counter:
        F.scaled_dot_product_attention(query, key, key)
    # Scores and their sum: each 2 * 3 heads of 5 x 7 dot products of 8 numbers.
    assert counter.get_total_flops() == 2 * (2 * 2 * 3 * 5 * 7 * 8)
