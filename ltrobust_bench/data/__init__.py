"""Data sets: sources, long-tailed splits, and the device-resident loader. Importing this does not import torch."""

from ltrobust_bench.data.registry import DatasetSpec, datasets
from ltrobust_bench.data.sources import Source
from ltrobust_bench.data.split import LongTailedSplit, long_tailed_counts

__all__ = ["DatasetSpec", "LongTailedSplit", "Source", "datasets", "long_tailed_counts"]
