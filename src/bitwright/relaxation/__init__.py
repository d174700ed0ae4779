"""Differentiable search over gated choices (Cai et al. 2019, ProxylessNAS, arXiv:1812.00332)."""
