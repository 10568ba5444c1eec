"""The Ray executor, as far as it can be tried without Ray; ``tests/slow`` tries it with a cluster."""

from __future__ import annotations

import sys
from types import SimpleNamespace

import pytest

from ltrobust_bench.errors import UsageError
from ltrobust_bench.executors.ray import Ray, RayOptions, places


def test_without_ray_one_line_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(UsageError, match=r"pip install 'ltrobust-bench\[ray\]'") as raised:
        Ray(RayOptions())
    assert raised.value.exit_code == 2 and "\n" not in str(raised.value)


@pytest.mark.parametrize(
    ("cpus", "gpus", "expected"),
    [(1, 0, 16), (5, 0, 3), (17, 0, 0), (1, 1, 8), (4, 1, 4), (1, 0.5, 16), (1, 0.3, 16), (1, 2, 4), (1, 3, 2)],
)
def test_jobs_that_fit_on_a_node(cpus, gpus, expected):
    assert places({"CPU": 16.0, "GPU": 8.0, "memory": 1e9}, cpus, gpus) == expected


def test_a_share_of_a_device_is_not_put_together_from_two():
    assert places({"CPU": 64.0, "GPU": 2.0}, 1, 0.4) == 4  # 5 would need 0.2 of each


def test_nodes_without_devices_or_processors_take_none():
    assert places({"CPU": 8.0}, 1, 0.5) == 0
    assert places({"object_store_memory": 1.0}, 1, 0) == 0


def test_the_threads_of_a_job_are_pinned_to_what_it_asks_for():
    assert RayOptions().threads == 1
    assert RayOptions(threads_per_worker=4).threads == 4


@pytest.mark.parametrize("address", ["127.0.0.1:1", "127.0.0.1:port", "127.0.0.1:70000"])
def test_a_cluster_that_is_not_there_is_one_line_and_soon(address, monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", SimpleNamespace(is_initialized=lambda: False))
    with pytest.raises(UsageError, match=f"^no Ray cluster at {address} .*ray start --head") as raised:
        Ray(RayOptions(address=address))
    assert "\n" not in str(raised.value)
