"""What each part under way may take of the concurrency and of the rate, so that together they keep within the whole.

It knows nothing of Dask.
"""

from __future__ import annotations

from fractions import Fraction


class Slots:
    """Divides one whole among the parts that are under way.

    A cluster grows and shrinks in mid-run. A part keeps the share that it started with, so after the cluster has grown
    a new part waits until what others hold leaves room for it.

    Args:
        most: maximum parts under way, such as the requests in flight of the whole.
    """

    def __init__(self, most: int) -> None:
        self._most = most
        self._free = Fraction(1)

    def take(self, slots: int) -> Fraction | None:
        """Return the share of one more part; None while no share is free.

        Args:
            slots: parts that the cluster can build at once.
        """
        share = Fraction(1, max(1, min(slots, self._most)))
        if share > self._free:
            return None
        self._free -= share
        return share

    def give_back(self, share: Fraction) -> None:
        """Take back the share of a part that has ended."""
        self._free += share
