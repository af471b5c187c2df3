"""Attention of `ops/attention` as Triton kernels: forward, and both halves of the backward pass.

The definition is `ops/attention/reference.py`; each kernel computes what `ops/attention/blocked.py`
does, with the softmax made block by block. A program takes a block of rows (or of events, for their
gradients) and goes over the blocks that its mask can reach: the mask's own rule decides each pair.
Sums are in fp32, and products of fp32 operands are not rounded to TF32.

NOT RUN ON A GPU YET, and not compiled.
`ops/attention/paths.py` therefore compares them with the blocked path before it uses them, and
`tests/unit/ops/test_attention_triton.py` does where Triton is installed.

Shapes: B histories, H heads, M rows, L events, d width of queries and keys, dv width of values.
"""

# A kernel's arguments are what its launch passes; letters follow the shapes.
# mypy: disable-error-code="no-untyped-def, untyped-decorator"

from __future__ import annotations

import triton
import triton.language as tl


@triton.jit
def _sees(
    t, p, j, n, M, window, prefix, full_rows,
    CAUSAL: tl.constexpr, WINDOWED: tl.constexpr, READS: tl.constexpr,
):  # fmt: skip
    """Give (m, n) bool: the rule of `Mask`."""
    row, place, event = t[:, None], p[:, None], j[None, :]
    sees = (event < n) & (row < M)
    if not READS:
        sees = sees & (place < n)
    if CAUSAL:
        sees = sees & (event <= place)
    if WINDOWED:
        reaches = (place - event < window) | (event < prefix) | (place >= n - full_rows)
        sees = sees & reaches
    return sees


@triton.jit
def _position_index(p, j, num_positions):
    return tl.minimum(tl.maximum(p[:, None] - j[None, :], 0), num_positions - 1)


@triton.jit
def _time_index(row_seconds, event_seconds, num_times):
    gap = tl.maximum(row_seconds[:, None] - event_seconds[None, :], 0) + 1
    bits = gap.to(tl.float32).to(tl.int32, bitcast=True)
    return tl.minimum((bits >> 23) - 127, num_times - 1)


@triton.jit
def _reach_of_rows(
    block, n, start, window, prefix, full_rows,
    CAUSAL: tl.constexpr, WINDOWED: tl.constexpr, BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr,
):  # fmt: skip
    """Give the blocks of events that a block of rows can reach.

    `num_head` from 0 on, then `num_body` from `body_start` on.
    """
    first = start + block * BLOCK_M
    last = first + BLOCK_M - 1
    stop = n
    num_head = 0
    body_start = 0
    if CAUSAL:
        stop = tl.minimum(n, last + 1)
    if WINDOWED:
        is_full = (full_rows > 0) & (last >= n - full_rows)
        head = tl.minimum(tl.cdiv(prefix, BLOCK_N), tl.cdiv(stop, BLOCK_N))
        oldest = tl.maximum(first - window + 1, 0) // BLOCK_N * BLOCK_N
        num_head = tl.where(is_full, 0, head)
        body_start = tl.where(is_full, 0, tl.maximum(oldest, head * BLOCK_N))
    num_body = tl.cdiv(tl.maximum(stop - body_start, 0), BLOCK_N)
    return num_head, body_start, num_body


@triton.jit
def _reach_of_events(
    block, n, start, rows, window, prefix, full_rows,
    CAUSAL: tl.constexpr, WINDOWED: tl.constexpr, BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr,
):  # fmt: skip
    """Give the blocks of rows that can reach a block of events.

    `num_head` from `head_start` on, then `num_body` from `body_start` on.
    """
    oldest = block * BLOCK_N
    head_start = 0
    head_stop = rows
    body_start = 0
    num_body = 0
    if CAUSAL:
        head_start = tl.maximum(oldest - start, 0) // BLOCK_M * BLOCK_M
    if WINDOWED:
        is_prefix = oldest < prefix
        near = tl.minimum(rows, tl.maximum(oldest + BLOCK_N - 1 + window - start, 0))
        head_stop = tl.where(is_prefix, rows, near)
    num_head = tl.cdiv(tl.maximum(head_stop - head_start, 0), BLOCK_M)
    if WINDOWED:
        full_start = tl.maximum(n - full_rows - start, 0) // BLOCK_M * BLOCK_M
        body_start = tl.maximum(head_start + num_head * BLOCK_M, full_start)
        rest = tl.cdiv(tl.maximum(rows - body_start, 0), BLOCK_M)
        num_body = tl.where(is_prefix | (full_rows == 0), 0, rest)
    return head_start, num_head, body_start, num_body


@triton.jit
def _scores(
    q, k, p, j, row_seconds, event_seconds, POSITIONS, TIMES, num_positions, num_times, scale,
    HAS_POSITIONS: tl.constexpr, HAS_TIMES: tl.constexpr,
):  # fmt: skip
    s = tl.dot(q, tl.trans(k), input_precision="ieee") * scale
    if HAS_POSITIONS:
        s += tl.load(POSITIONS + _position_index(p, j, num_positions)).to(tl.float32)
    if HAS_TIMES:
        s += tl.load(TIMES + _time_index(row_seconds, event_seconds, num_times)).to(tl.float32)
    return s


@triton.jit
def _weights_back(s, sees, grad_weights, log_sum, delta, divisor, SOFTMAX: tl.constexpr):
    """Give the weights again, and the gradient of the scores."""
    if SOFTMAX:
        w = tl.where(sees, tl.exp(s - log_sum[:, None]), 0.0)
        grad_s = w * (grad_weights - delta[:, None])
    else:
        gate = tl.sigmoid(s)
        w = tl.where(sees, s * gate, 0.0) / divisor
        slope = gate * (1 + s * (1 - gate)) / divisor
        grad_s = tl.where(sees, grad_weights * slope, 0.0)
    return w, grad_s


@triton.jit
def _load(X, rows, width, count, stride, limit):
    """Load (rows, width) of a matrix whose last dimension is contiguous; zeros outside."""
    inside = (rows[:, None] < count) & (width[None, :] < limit)
    return tl.load(X + rows[:, None] * stride + width[None, :], mask=inside, other=0.0)


@triton.jit
def forward_kernel(
    Q, K, V, OUT, LOG_SUM, LENGTHS, ROW_SECONDS, EVENT_SECONDS, POSITIONS, TIMES,
    q_b, q_h, q_m, k_b, k_h, k_l, v_b, v_h, v_l, o_b, o_h, o_m, positions_h, times_h,
    H, M, L, D, DV, num_positions, num_times, window, prefix, full_rows, scale, divisor,
    SOFTMAX: tl.constexpr, CAUSAL: tl.constexpr, WINDOWED: tl.constexpr, READS: tl.constexpr,
    HAS_POSITIONS: tl.constexpr, HAS_TIMES: tl.constexpr, BLOCK_M: tl.constexpr,
    BLOCK_N: tl.constexpr, BLOCK_D: tl.constexpr, BLOCK_DV: tl.constexpr,
):  # fmt: skip
    """Weigh the events of one block of rows."""
    block = tl.program_id(0)
    bh = tl.program_id(1).to(tl.int64)
    b, h = bh // H, bh % H
    n = tl.load(LENGTHS + b)
    t = block * BLOCK_M + tl.arange(0, BLOCK_M)
    d, dv = tl.arange(0, BLOCK_D), tl.arange(0, BLOCK_DV)
    start = tl.maximum(n - M, 0)
    p = start + t
    if READS:
        p = t * 0 + n
    q = _load(Q + b * q_b + h * q_h, t, d, M, q_m, D)
    row_seconds = t
    if HAS_TIMES:
        row_seconds = tl.load(ROW_SECONDS + b * M + t, mask=t < M, other=0)
    acc = tl.zeros((BLOCK_M, BLOCK_DV), dtype=tl.float32)
    peak = tl.full((BLOCK_M,), float("-inf"), dtype=tl.float32)
    total = tl.zeros((BLOCK_M,), dtype=tl.float32)
    num_head, body_start, num_body = _reach_of_rows(
        block, n, start, window, prefix, full_rows, CAUSAL, WINDOWED, BLOCK_M, BLOCK_N
    )
    for i in range(num_head + num_body):
        j0 = tl.where(i < num_head, i * BLOCK_N, body_start + (i - num_head) * BLOCK_N)
        j = j0 + tl.arange(0, BLOCK_N)
        k = _load(K + b * k_b + h * k_h, j, d, L, k_l, D)
        v = _load(V + b * v_b + h * v_h, j, dv, L, v_l, DV)
        event_seconds = j
        if HAS_TIMES:
            event_seconds = tl.load(EVENT_SECONDS + b * L + j, mask=j < L, other=0)
        s = _scores(
            q, k, p, j, row_seconds, event_seconds, POSITIONS + h * positions_h,
            TIMES + h * times_h, num_positions, num_times, scale, HAS_POSITIONS, HAS_TIMES,
        )  # fmt: skip
        sees = _sees(t, p, j, n, M, window, prefix, full_rows, CAUSAL, WINDOWED, READS)
        if SOFTMAX:
            s = tl.where(sees, s, float("-inf"))
            higher = tl.maximum(peak, tl.max(s, 1))
            finite = tl.where(higher == float("-inf"), 0.0, higher)
            w = tl.exp(s - finite[:, None])
            shrink = tl.exp(peak - finite)
            total = total * shrink + tl.sum(w, 1)
            acc = acc * shrink[:, None]
            peak = higher
        else:
            w = tl.where(sees, s * tl.sigmoid(s), 0.0) / divisor
        acc += tl.dot(w.to(v.dtype), v, input_precision="ieee")
    if SOFTMAX:
        acc = acc / tl.where(total > 0, total, 1.0)[:, None]
        log_sum = tl.where(total > 0, peak + tl.log(total), float("inf"))
        tl.store(LOG_SUM + bh * M + t, log_sum, mask=t < M)
    out = OUT + b * o_b + h * o_h + t[:, None] * o_m + dv[None, :]
    tl.store(out, acc.to(OUT.dtype.element_ty), mask=(t[:, None] < M) & (dv[None, :] < DV))


@triton.jit
def rows_backward_kernel(
    Q, K, V, GRAD_OUT, LOG_SUM, DELTA, LENGTHS, ROW_SECONDS, EVENT_SECONDS, POSITIONS, TIMES,
    GRAD_Q, GRAD_POSITIONS, GRAD_TIMES,
    q_b, q_h, q_m, k_b, k_h, k_l, v_b, v_h, v_l, o_b, o_h, o_m, positions_h, times_h,
    H, M, L, D, DV, num_positions, num_times, window, prefix, full_rows, scale, divisor,
    SOFTMAX: tl.constexpr, CAUSAL: tl.constexpr, WINDOWED: tl.constexpr, READS: tl.constexpr,
    HAS_POSITIONS: tl.constexpr, HAS_TIMES: tl.constexpr, BLOCK_M: tl.constexpr,
    BLOCK_N: tl.constexpr, BLOCK_D: tl.constexpr, BLOCK_DV: tl.constexpr,
):  # fmt: skip
    """Differentiate one block of queries, and add to the tables' gradients.

    Rows share the tables' few entries, so additions to them wait for each other.
    """
    block = tl.program_id(0)
    bh = tl.program_id(1).to(tl.int64)
    b, h = bh // H, bh % H
    n = tl.load(LENGTHS + b)
    t = block * BLOCK_M + tl.arange(0, BLOCK_M)
    d, dv = tl.arange(0, BLOCK_D), tl.arange(0, BLOCK_DV)
    start = tl.maximum(n - M, 0)
    p = start + t
    if READS:
        p = t * 0 + n
    q = _load(Q + b * q_b + h * q_h, t, d, M, q_m, D)
    grad_out = _load(GRAD_OUT + b * o_b + h * o_h, t, dv, M, o_m, DV)
    log_sum = p.to(tl.float32)
    delta = log_sum
    if SOFTMAX:
        log_sum = tl.load(LOG_SUM + bh * M + t, mask=t < M, other=float("inf"))
        delta = tl.load(DELTA + bh * M + t, mask=t < M, other=0.0)
    row_seconds = t
    if HAS_TIMES:
        row_seconds = tl.load(ROW_SECONDS + b * M + t, mask=t < M, other=0)
    acc = tl.zeros((BLOCK_M, BLOCK_D), dtype=tl.float32)
    num_head, body_start, num_body = _reach_of_rows(
        block, n, start, window, prefix, full_rows, CAUSAL, WINDOWED, BLOCK_M, BLOCK_N
    )
    for i in range(num_head + num_body):
        j0 = tl.where(i < num_head, i * BLOCK_N, body_start + (i - num_head) * BLOCK_N)
        j = j0 + tl.arange(0, BLOCK_N)
        k = _load(K + b * k_b + h * k_h, j, d, L, k_l, D)
        v = _load(V + b * v_b + h * v_h, j, dv, L, v_l, DV)
        event_seconds = j
        if HAS_TIMES:
            event_seconds = tl.load(EVENT_SECONDS + b * L + j, mask=j < L, other=0)
        s = _scores(
            q, k, p, j, row_seconds, event_seconds, POSITIONS + h * positions_h,
            TIMES + h * times_h, num_positions, num_times, scale, HAS_POSITIONS, HAS_TIMES,
        )  # fmt: skip
        sees = _sees(t, p, j, n, M, window, prefix, full_rows, CAUSAL, WINDOWED, READS)
        grad_w = tl.dot(grad_out, tl.trans(v), input_precision="ieee")
        _, grad_s = _weights_back(s, sees, grad_w, log_sum, delta, divisor, SOFTMAX)
        acc += tl.dot(grad_s.to(k.dtype), k, input_precision="ieee")
        if HAS_POSITIONS:
            index = _position_index(p, j, num_positions)
            tl.atomic_add(GRAD_POSITIONS + h * positions_h + index, grad_s, mask=sees)
        if HAS_TIMES:
            bucket = _time_index(row_seconds, event_seconds, num_times)
            tl.atomic_add(GRAD_TIMES + h * times_h + bucket, grad_s, mask=sees)
    grad_q = GRAD_Q + bh * M * D + t[:, None] * D + d[None, :]
    inside = (t[:, None] < M) & (d[None, :] < D)
    tl.store(grad_q, (acc * scale).to(GRAD_Q.dtype.element_ty), mask=inside)


@triton.jit
def events_backward_kernel(
    Q, K, V, GRAD_OUT, LOG_SUM, DELTA, LENGTHS, ROW_SECONDS, EVENT_SECONDS, POSITIONS, TIMES,
    GRAD_K, GRAD_V,
    q_b, q_h, q_m, k_b, k_h, k_l, v_b, v_h, v_l, o_b, o_h, o_m, positions_h, times_h,
    H, M, L, D, DV, num_positions, num_times, window, prefix, full_rows, scale, divisor,
    SOFTMAX: tl.constexpr, CAUSAL: tl.constexpr, WINDOWED: tl.constexpr, READS: tl.constexpr,
    HAS_POSITIONS: tl.constexpr, HAS_TIMES: tl.constexpr, BLOCK_M: tl.constexpr,
    BLOCK_N: tl.constexpr, BLOCK_D: tl.constexpr, BLOCK_DV: tl.constexpr,
):  # fmt: skip
    """Differentiate one block of keys and values."""
    block = tl.program_id(0)
    bh = tl.program_id(1).to(tl.int64)
    b, h = bh // H, bh % H
    n = tl.load(LENGTHS + b)
    j = block * BLOCK_N + tl.arange(0, BLOCK_N)
    d, dv = tl.arange(0, BLOCK_D), tl.arange(0, BLOCK_DV)
    start = tl.maximum(n - M, 0)
    rows = tl.minimum(n, M)
    if READS:
        rows = n * 0 + M
    k = _load(K + b * k_b + h * k_h, j, d, L, k_l, D)
    v = _load(V + b * v_b + h * v_h, j, dv, L, v_l, DV)
    event_seconds = j
    if HAS_TIMES:
        event_seconds = tl.load(EVENT_SECONDS + b * L + j, mask=j < L, other=0)
    grad_k = tl.zeros((BLOCK_N, BLOCK_D), dtype=tl.float32)
    grad_v = tl.zeros((BLOCK_N, BLOCK_DV), dtype=tl.float32)
    head_start, num_head, body_start, num_body = _reach_of_events(
        block, n, start, rows, window, prefix, full_rows, CAUSAL, WINDOWED, BLOCK_M, BLOCK_N
    )
    for i in range(num_head + num_body):
        t0 = tl.where(i < num_head, head_start + i * BLOCK_M, body_start + (i - num_head) * BLOCK_M)
        t = t0 + tl.arange(0, BLOCK_M)
        p = start + t
        if READS:
            p = t * 0 + n
        q = _load(Q + b * q_b + h * q_h, t, d, M, q_m, D)
        grad_out = _load(GRAD_OUT + b * o_b + h * o_h, t, dv, M, o_m, DV)
        log_sum = p.to(tl.float32)
        delta = log_sum
        if SOFTMAX:
            log_sum = tl.load(LOG_SUM + bh * M + t, mask=t < M, other=float("inf"))
            delta = tl.load(DELTA + bh * M + t, mask=t < M, other=0.0)
        row_seconds = t
        if HAS_TIMES:
            row_seconds = tl.load(ROW_SECONDS + b * M + t, mask=t < M, other=0)
        s = _scores(
            q, k, p, j, row_seconds, event_seconds, POSITIONS + h * positions_h,
            TIMES + h * times_h, num_positions, num_times, scale, HAS_POSITIONS, HAS_TIMES,
        )  # fmt: skip
        sees = _sees(t, p, j, n, M, window, prefix, full_rows, CAUSAL, WINDOWED, READS)
        grad_w = tl.dot(grad_out, tl.trans(v), input_precision="ieee")
        w, grad_s = _weights_back(s, sees, grad_w, log_sum, delta, divisor, SOFTMAX)
        grad_v += tl.dot(tl.trans(w).to(grad_out.dtype), grad_out, input_precision="ieee")
        grad_k += tl.dot(tl.trans(grad_s).to(q.dtype), q, input_precision="ieee")
    keys = GRAD_K + bh * L * D + j[:, None] * D + d[None, :]
    inside = (j[:, None] < L) & (d[None, :] < D)
    tl.store(keys, (grad_k * scale).to(GRAD_K.dtype.element_ty), mask=inside)
    values = GRAD_V + bh * L * DV + j[:, None] * DV + dv[None, :]
    inside = (j[:, None] < L) & (dv[None, :] < DV)
    tl.store(values, grad_v.to(GRAD_V.dtype.element_ty), mask=inside)
