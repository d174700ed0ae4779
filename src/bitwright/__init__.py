"""Search for, train and ship quantized networks whose inference is integer only.

What is named here is imported when it is first used, so that parts without PyTorch, such as the tables of
NAS-Bench-101, open in a moment.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from .version import VERSION as __version__  # noqa: N811

if TYPE_CHECKING:
    from .architecture import Architecture, Decision
    from .integer.graph import IntegerGraph
    from .integer.lower import lower
    from .network import Network
    from .trial import Archive, Measurement, Objective, Trial

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
]

_PLACES = {
    "Architecture": "architecture",
    "Archive": "trial",
    "Decision": "architecture",
    "IntegerGraph": "integer.graph",
    "Measurement": "trial",
    "Network": "network",
    "Objective": "trial",
    "Trial": "trial",
    "lower": "integer.lower",
}


def __getattr__(name: str) -> Any:
    if name not in _PLACES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f".{_PLACES[name]}", __name__), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
