"""Every error the package raises on purpose; the command line prints one as a single line and exits with 2.

BitwrightError
├── ConfigError             a name no component answers to, or an option it does not take
├── InvalidArchitecture     choices outside their search space
├── InvalidNetwork          operations whose shapes, scales or weights do not fit together
├── InvalidGraph            integer operations whose shapes or ranges do not fit together, or a corrupt file of them
├── LoweringError           a network, or a layer of one, that has no integer form
├── ExportError             a graph that a format cannot hold, or a tool that is missing
├── DataError               a data set that is missing, truncated or corrupt
├── StorageError            a run directory or checkpoint that cannot be written or read
├── TrainingError           a training that diverges however often it starts anew
└── DistributedError        another process, of a training on several devices or a worker on Ray, that has ended
"""


class BitwrightError(Exception):
    """Base of all deliberate errors; its text is one line."""


class ConfigError(BitwrightError, ValueError):
    pass


class InvalidArchitecture(BitwrightError, ValueError):
    pass


class InvalidNetwork(BitwrightError, ValueError):
    pass


class InvalidGraph(BitwrightError, ValueError):
    pass


class LoweringError(BitwrightError, ValueError):
    pass


class ExportError(BitwrightError):
    pass


class DataError(BitwrightError):
    pass


class StorageError(BitwrightError):
    pass


class TrainingError(BitwrightError):
    pass


class DistributedError(BitwrightError):
    pass
