"""Every error the package raises on purpose; the command line prints one as a single line and exits with 2.

BitwrightError
├── ConfigError             a name no component answers to, or an option it does not take
├── InvalidArchitecture     choices outside their search space
├── InvalidNetwork          operations whose shapes, scales or weights do not fit together
├── DataError               a data set that is missing, truncated or corrupt
└── StorageError            a run directory or checkpoint that cannot be written or read
"""


class BitwrightError(Exception):
    """Base of all deliberate errors; its text is one line."""


class ConfigError(BitwrightError, ValueError):
    pass


class InvalidArchitecture(BitwrightError, ValueError):
    pass


class InvalidNetwork(BitwrightError, ValueError):
    pass


class DataError(BitwrightError):
    pass


class StorageError(BitwrightError):
    pass
