"""Deep Interest Network: each event weighted by how much it says about the candidate.

Paper: Zhou et al., "Deep Interest Network for Click-Through Rate Prediction", KDD 2018, arXiv:1706.06978.
Layer: v = sum_l a(e_l, c) e_l (eq. 3), a the activation unit: an MLP on [e, c, e - c, e * c].
Differs from the paper: the unit takes e - c and e * c in place of an outer product, as its code does.
Cost: 4 * D * A + products + extra parameters; L * (2 * D * A + products + D) + D * A multiply-adds per row.
Shapes: B rows, L events of width D, A first hidden width, products the unit's later matrices.
"""
