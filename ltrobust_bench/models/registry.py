"""Which backbones there are: functions from input channels to a module with an attribute ``features`` (D)."""

from __future__ import annotations

from collections.abc import Callable

from ltrobust_bench.registry import Entry, Registry

_HERE = "ltrobust_bench/models/registry.py"


def _built_in() -> list[Entry]:
    base = "ltrobust_bench.models"
    return [
        Entry("small", f"{base}.small:small", "three convolutions, 64 features, for 8x8 and 28x28 images", _HERE),
        Entry("resnet18", f"{base}.resnet:resnet18", "ResNet-18 with CIFAR stem, 512 features", _HERE),
        Entry("preact-resnet18", f"{base}.resnet:preact_resnet18", "PreActResNet-18, 512 features", _HERE),
        Entry("wrn-28-10", f"{base}.wide_resnet:wrn_28_10", "WideResNet-28-10, 640 features", _HERE),
        Entry("wrn-34-10", f"{base}.wide_resnet:wrn_34_10", "WideResNet-34-10, 640 features", _HERE),
    ]


models: Registry[Callable] = Registry(
    "model", discover=_built_in, entry_point_group="ltrobust_bench.models", base=Callable
)
