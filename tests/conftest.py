"""Shared by all tests: no data folder or result folder of the developer's by accident."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

KEPT = "LTBENCH_DATA_OF_TESTS"
"""Where the workers of a parallel run find what was taken out of their environment."""
REAL_DATA = os.environ.pop("LTBENCH_DATA", None) or os.environ.get(KEPT)
if REAL_DATA is not None:
    os.environ[KEPT] = REAL_DATA
if "PYTEST_XDIST_WORKER" in os.environ:  # each worker has one core
    os.environ.setdefault("OMP_NUM_THREADS", "1")
for _name in ("LTBENCH_RUNS", "LTBENCH_RESULTS"):
    os.environ.pop(_name, None)


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--fidelity", type=Path, metavar="FILE", help="write the fidelity report of the tests that ran")


def pytest_configure(config: pytest.Config) -> None:
    path = config.getoption("--fidelity")
    if path is not None:
        from fidelity import Report

        config.pluginmanager.register(Report(path))


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The documents' commands take longest: first, so that in a parallel run nobody waits for them in the end."""
    items.sort(key=lambda item: item.path.name != "test_documents.py")


def _real(folder: str, name: str) -> Path:
    if REAL_DATA is None or not (Path(REAL_DATA) / folder).is_dir():
        pytest.skip(f"real {name} is tested where LTBENCH_DATA names its folder")
    return Path(REAL_DATA)


@pytest.fixture
def cifar10_folder() -> Path:
    """The folder of the real CIFAR-10 (``LTBENCH_DATA``); CI has it, elsewhere the test says that it skipped."""
    return _real("cifar-10-batches-py", "CIFAR-10")


@pytest.fixture
def cifar100_folder() -> Path:
    """The same of CIFAR-100."""
    return _real("cifar-100-python", "CIFAR-100")


@pytest.fixture
def judge_here(monkeypatch: pytest.MonkeyPatch) -> None:
    """Networks are judged, and trained again, in this process, which is quicker and has run methods' code already;
    test_judge.py does it in processes apart."""
    import torch

    from ltrobust_bench.judge.graph import write_graph
    from ltrobust_bench.plan.request import Request
    from ltrobust_bench.training.trainer import train_plan
    from ltrobust_bench.verbs import judging, loading, rechecking, verification

    def trained(run, folder, data_dir, device, progress):  # type: ignore[no-untyped-def]
        return train_plan(
            Request.of(run).to_plan(data_dir), folder / run.folder_name(), torch.device(device)
        ).model_path

    for module in (judging, verification, rechecking):
        monkeypatch.setattr(module, "refuse_imported", lambda: None)
    monkeypatch.setattr(judging, "write_graph_apart", lambda network, output, progress: write_graph(
        output, loading.graph_of_network(network)))  # fmt: skip
    monkeypatch.setattr(verification, "trained_apart", trained)


@pytest.fixture(scope="session", autouse=True)
def _cache_folder(tmp_path_factory: pytest.TempPathFactory) -> None:
    os.environ["LTBENCH_CACHE"] = str(tmp_path_factory.mktemp("cache"))


@pytest.fixture
def root() -> Path:
    """The checkout."""
    return Path(__file__).resolve().parents[1]
