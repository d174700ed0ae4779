"""NAS-Bench-101: its 423,624 modules, its measurements, its networks (Ying et al., ICML 2019, arXiv:1902.09635)."""

from .api import NASBench
from .spec import ModelSpec, OutOfDomainError

__all__ = ["ModelSpec", "NASBench", "OutOfDomainError"]
