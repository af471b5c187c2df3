"""Which work the one compute thread does next, and which requests are refused.

Pure logic on a clock that the caller reads; needs no torch.
"""
