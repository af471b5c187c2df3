"""Kernels in Triton, each with the plain form that it must equal."""
