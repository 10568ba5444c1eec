"""A split whose training half is somebody else's: only the number of its images per class is known."""

from __future__ import annotations

from collections.abc import Sequence

from ltrobust_bench.data.split import LongTailedSplit
from ltrobust_bench.errors import UsageError
from ltrobust_bench.terms import canonical_digest


class GivenCounts(LongTailedSplit):
    """A split of ours for testing, with the training counts of another."""

    @property
    def train_sha256(self) -> str:  # type: ignore[override]
        """Of the counts: which images they count is not known."""
        return f"counts-{canonical_digest(self.train_counts)[:12]}"

    @classmethod
    def of(cls, split: LongTailedSplit, counts: Sequence[int]) -> GivenCounts:
        """The split with these training images per label, which define head, medium and tail.

        Raises:
            UsageError: if there is not one positive whole number for each class.
        """
        numbers = [int(count) for count in counts]
        if len(numbers) != len(split.train_counts):
            raise UsageError(
                f"{len(numbers)} training counts for {len(split.train_counts)} classes; give one for each."
            )
        if min(numbers) < 1 or any(number != count for number, count in zip(numbers, counts, strict=True)):
            raise UsageError("training counts are whole numbers of at least 1, one for each class in label order.")
        return cls(split.train, split.test, numbers, split.test_counts, split.held_out)
