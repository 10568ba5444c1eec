"""Long work that is stopped on the way."""

from __future__ import annotations

from ltrobust_bench.progress import Silent


class StopAfter(Silent):
    """Interrupts after a number of steps."""

    def __init__(self, steps):
        self.left = steps

    def advance(self, units=1, detail=None):
        self.left -= units
        if self.left < 0:
            raise KeyboardInterrupt
