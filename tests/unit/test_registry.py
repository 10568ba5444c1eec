"""Registries: laziness, duplicates, suggestions, entry points; and that nothing light imports torch."""

from __future__ import annotations

import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from ltrobust_bench.errors import UnknownNameError, UsageError
from ltrobust_bench.registry import DuplicateNameError, Registration, Registry


def test_target_is_imported_only_when_used():
    registry = Registry(
        "thing", discover=lambda: [Registration("broken", "no_such_module:x"), Registration("join", "os.path:join")]
    )
    assert registry.names() == ["broken", "join"]
    assert registry.get("join")("a", "b").startswith("a")
    with pytest.raises(UsageError, match=r"no_such_module:x cannot be loaded \(ModuleNotFoundError"):
        registry.get("broken")


def test_duplicate_names_both_sides():
    registry = Registry("thing")
    registry.add(Registration("x", 1, origin="here.py"))
    with pytest.raises(DuplicateNameError, match=r"here\.py and in there\.py"):
        registry.add(Registration("x", 2, origin="there.py"))


def test_several_threads_may_be_the_first_to_look():
    def found():
        time.sleep(0.05)
        return [Registration(f"n{i}", "json:loads") for i in range(50)]

    registry = Registry("thing", discover=found)
    with ThreadPoolExecutor(8) as pool:
        assert list(pool.map(lambda _: len(registry.names()), range(8))) == [50] * 8


@pytest.mark.parametrize(
    ("typed", "offered"), [("reet", "'reat'"), ("AT_BSL", "'at-bsl'"), ("zzz", "known: at-bsl, reat")]
)
def test_unknown_name_offers_the_nearest(typed, offered):
    registry = Registry("method", discover=lambda: [Registration("reat", 1), Registration("at-bsl", 2)])
    with pytest.raises(UnknownNameError, match=offered):
        registry.get(typed)


LIGHT = [
    "import ltrobust_bench",
    "import ltrobust_bench.cli.main, ltrobust_bench.contribute.scaffold",
    "from ltrobust_bench.cards import methods; [e.load().card for e in methods]",
    "from ltrobust_bench.protocol import protocols, load_protocol; [load_protocol(n) for n in protocols.names()]",
    "import ltrobust_bench.records.io, ltrobust_bench.report, ltrobust_bench.report.aggregate",
    "import ltrobust_bench.report.analysis_figures, ltrobust_bench.report.published_tables, ltrobust_bench.cli.report",
    "import ltrobust_bench.sweeps.states, ltrobust_bench.sweeps.scheduler, ltrobust_bench.cli.sweep; "
    "from ltrobust_bench.executors.registry import executors; [executors.get(n) for n in executors.names()]; "
    "from ltrobust_bench.cli.main import main; main(['status'])",
    "import ltrobust_bench.scores.metrics, ltrobust_bench.data, ltrobust_bench.plan",
    "from ltrobust_bench.cli.main import main; [main(['list', k]) for k in "
    "('methods', 'datasets', 'models', 'attacks', 'protocols')]; main(['show', 'reat']); main(['--help'])",
]


@pytest.mark.parametrize("code", LIGHT)
def test_light_things_do_not_import_torch(code):
    done = subprocess.run(
        [sys.executable, "-c", f"{code}\nimport sys; sys.exit('torch' in sys.modules)"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
