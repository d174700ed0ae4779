"""Latency of networks of inverted residual blocks as the sum over their blocks, from a table measured beforehand."""
