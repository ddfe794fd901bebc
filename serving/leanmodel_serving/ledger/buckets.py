"""Token buckets: how fast a key may ask. Pure."""

from __future__ import annotations

from dataclasses import dataclass

MINUTE_S = 60.0


@dataclass(frozen=True)
class Bucket:
    """A bucket that holds a minute's worth and fills evenly.

    Attributes:
        level: what is in it; below 0 where more was used than had been thought.
        at: when that was, in seconds since the epoch.
    """

    level: float
    at: float

    def filled(self, per_minute: int, now: float) -> Bucket:
        """Return the bucket at a later time; a clock that went back fills nothing."""
        passed = max(0.0, now - self.at)
        return Bucket(min(float(per_minute), self.level + passed * per_minute / MINUTE_S), max(self.at, now))

    def taken(self, amount: float) -> Bucket:
        """Return the bucket with ``amount`` taken out; a negative amount is put back."""
        return Bucket(self.level - amount, self.at)

    def wait(self, amount: float, per_minute: int) -> float:
        """Return the seconds until ``amount`` (at most the whole bucket) is in it; 0 when it is."""
        missing = min(amount, float(per_minute)) - self.level
        # A millionth is the rounding of floats, not a request.
        return max(0.0, missing - 1e-6) * MINUTE_S / per_minute


def full(per_minute: int, now: float) -> Bucket:
    """Return a bucket that nobody has asked yet."""
    return Bucket(float(per_minute), now)
