"""docs/scale.md: its commands can be typed, its manifest is well formed, and the simulation that it shows works."""

from __future__ import annotations

import importlib.util
import re
import shlex
import sys
from pathlib import Path

import pytest
import yaml

from ltrobust_bench.cli.main import ltbench
from ltrobust_bench.executors.registry import executors
from ltrobust_bench.sweeps.plan import read_plan
from ltrobust_bench.verbs.sweeping import executor_with

ROOT = Path(__file__).resolve().parents[2]
PAGE = (ROOT / "docs" / "scale.md").read_text(encoding="utf-8")


def blocks(language):
    return re.findall(rf"```{language}\n(.*?)```", PAGE, flags=re.DOTALL)


MANIFEST = yaml.safe_load(blocks("yaml")[0])
COMMANDS = [
    line[line.index("ltbench ") :].split("#")[0].strip()
    for block in [*blocks("bash"), f"{MANIFEST['spec']['entrypoint']}\n"]
    for line in block.splitlines()
    if "ltbench " in line
]


def test_there_is_a_command_for_each_executor():
    assert {"slurm", "ray"} <= set(re.findall(r"--executor (\w+)", " ".join(COMMANDS)))


@pytest.mark.parametrize("command", COMMANDS)
def test_command_can_be_typed(command):
    _, verb, *words = shlex.split(command)
    found = ltbench.get_command(None, verb)
    given = found.make_context(verb, words).params
    if verb == "sweep":  # an option that the executor does not have would be refused
        names = {name for kind in executors.names() for name in executors.get(kind).takes.model_fields}
        executor_with(given["executor"], {name: given[name] for name in names if given.get(name) is not None})


def test_the_manifest_is_a_ray_job_whose_pods_share_a_folder_that_the_sweep_uses():
    assert (MANIFEST["apiVersion"], MANIFEST["kind"]) == ("ray.io/v1", "RayJob")
    cluster, entrypoint = MANIFEST["spec"]["rayClusterSpec"], MANIFEST["spec"]["entrypoint"]
    pods = [cluster["headGroupSpec"], *cluster["workerGroupSpecs"]]
    for pod in (group["template"]["spec"] for group in pods):
        (container,) = pod["containers"]
        (mount,) = container["volumeMounts"]
        assert mount["name"] in {volume["name"] for volume in pod["volumes"]}
        assert all(path.startswith(mount["mountPath"]) for path in re.findall(r"-dir (\S+)", entrypoint))
        assert cluster["rayVersion"] in container["image"]


def test_the_plan_of_the_estimate_has_so_many_runs():
    runs = read_plan(ROOT / "docs" / "scale-plan.toml").requests()
    methods = {(run.method, run.plugins, run.settings) for run in runs}
    assert (len(methods), len({run.dataset for run in runs}), len({run.seed for run in runs})) == (40, 3, 5)
    assert len(runs) == 600


@pytest.mark.parametrize("sweeps", [1, 2])
def test_the_simulation_loses_nothing(sweeps, monkeypatch):
    spec = importlib.util.spec_from_file_location("simulate_sweep", ROOT / "benchmarks" / "simulate_sweep.py")
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, spec.name, module)  # its dataclass looks for its module there
    spec.loader.exec_module(module)
    seen = module.simulate(jobs=600, nodes=6, slots=4, life=8.0, sweeps=sweeps)
    assert seen["jobs"] == 600 and seen["deaths of nodes"] > 20 and seen["sessions lost"] > 50
