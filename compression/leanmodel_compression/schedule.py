"""How long the steps will take on this machine: operations over measured speed, bytes over a disk's pace."""

from __future__ import annotations

from .steps.protocol import Work

# Share of a plain matrix product's speed that a whole model reaches: norms, attention and dispatch take the rest.
EFFICIENCY = 0.55
# Memory and disk traffic of loading, saving and the optimiser, as measured on two cores.
BYTES_PER_SECOND = 3e9
# Loading, checking and committing what a step made.
FINISH_SECONDS = 4.0


def seconds(work: Work, gflops: float) -> float:
    """Return the estimated wall time of a step.

    Args:
        work: how much there is to do.
        gflops: the machine's measured speed in float32 matrix products, 10⁹ operations a second.
    """
    return (
        work.flops / (max(gflops, 0.1) * 1e9 * EFFICIENCY)
        + work.bytes / BYTES_PER_SECOND
        + work.seconds
        + FINISH_SECONDS
    )
