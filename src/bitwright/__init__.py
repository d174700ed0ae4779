"""Search for, train and ship quantized networks whose inference is integer only."""

from .architecture import Architecture, Decision
from .network import Network
from .search import search
from .trial import Archive, Measurement, Objective, Trial
from .version import VERSION as __version__  # noqa: N811

__all__ = [
    "Architecture",
    "Archive",
    "Decision",
    "Measurement",
    "Network",
    "Objective",
    "Trial",
    "__version__",
    "search",
]
