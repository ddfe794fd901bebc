"""One thread for linear algebra: the matrices are small, and threads that wait for each other cost ten times the
work itself on a busy machine (measured: 0.1 s instead of 0.005 s a fit). It also keeps sums in one order, so that
the same records give the same policy on machines with different numbers of cores.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import ParamSpec, TypeVar

# scikit-learn's own handle on the BLAS and OpenMP pools; threadpoolctl, which it wraps, is no dependency of ours.
from sklearn.utils.parallel import _get_threadpool_controller

P = ParamSpec("P")
T = TypeVar("T")


def single_threaded(function: Callable[P, T]) -> Callable[P, T]:
    """The same function, run with one BLAS and OpenMP thread."""

    @wraps(function)
    def limited(*args: P.args, **kwargs: P.kwargs) -> T:
        with _get_threadpool_controller().limit(limits=1):
            return function(*args, **kwargs)

    return limited
