"""Quantised weights on a rank: which are taken, how they split, and what kernels make of them."""
