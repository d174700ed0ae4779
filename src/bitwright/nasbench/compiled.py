"""Compiled functions: numba, its results kept on disk where there is a place for them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

from ..errors import ConfigError

Function = TypeVar("Function", bound=Callable[..., Any])


def compiled(function: Function) -> Function:
    """`function` as machine code, made at its first call and found again by later processes.

    ConfigError without numba. Nothing is kept if neither the package's folder nor the user's cache can be written.
    """
    numba = _numba()
    try:
        result: Function = numba.njit(cache=True, nogil=True)(function)
    except RuntimeError:  # numba's "no locator available": the function is new in every process
        result = numba.njit(nogil=True)(function)
    return result


def compilable(function: Function) -> Function:
    """`function` itself, which compiled functions may now call."""
    _numba().extending.register_jitable(function)
    return function


def _numba() -> Any:
    try:
        import numba
        import numba.extending
    except ImportError:
        raise ConfigError(
            "this part of NAS-Bench-101 is compiled when it is used: pip install 'bitwright[nasbench]' (numba)"
        ) from None
    return numba
