"""Search for, train and ship quantized networks whose inference is integer only."""

from .architecture import Architecture, Decision
from .integer.graph import IntegerGraph
from .integer.lower import lower
from .network import Network
from .search import search
from .trial import Archive, Measurement, Objective, Trial
from .version import VERSION as __version__  # noqa: N811

__all__ = [
    "Architecture",
    "Archive",
    "Decision",
    "IntegerGraph",
    "Measurement",
    "Network",
    "Objective",
    "Trial",
    "__version__",
    "lower",
    "search",
]
