"""The contract of a method, as checks that return a list of problems. ``ltbench check`` and CI run the same."""

from __future__ import annotations

import ast
import signal
import tempfile
from collections.abc import Callable, Mapping
from contextlib import suppress
from functools import cached_property
from importlib import import_module
from pathlib import Path
from threading import current_thread, main_thread
from typing import Any

import torch

from ltrobust_bench.api import Method, Plugin, TrainInfo
from ltrobust_bench.cards import Card, methods, plugins
from ltrobust_bench.contribute.surroundings import Surroundings, drawn
from ltrobust_bench.data.loader import to_unit
from ltrobust_bench.errors import LTBenchError
from ltrobust_bench.interrupt import Stopped, listening
from ltrobust_bench.plan.make import Plan
from ltrobust_bench.plan.request import Request
from ltrobust_bench.progress import Silent
from ltrobust_bench.training.build import deployed
from ltrobust_bench.training.result import TrainingResult
from ltrobust_bench.training.step import Step
from ltrobust_bench.training.trainer import Session, train_plan
from ltrobust_bench.training.views import BEHIND
from ltrobust_bench.verbs import load_model

DATASET, PROTOCOL = "digits-lt", "smoke"
ALLOWED_IMPORTS = ("ltrobust_bench.api", "ltrobust_bench.longtail")
CPU = torch.device("cpu")


class _StopAfter(Silent):
    """Interrupts training after a number of steps, as Ctrl-C would."""

    def __init__(self, steps: int) -> None:
        self.left = steps

    def advance(self, units: int = 1, detail: Callable[[], str] | None = None) -> None:
        self.left -= units
        if self.left < 0:
            raise KeyboardInterrupt


class _AskAfter(_StopAfter):
    """Asks the process to stop after a number of steps, as a scheduler would."""

    def advance(self, units: int = 1, detail: Callable[[], str] | None = None) -> None:
        self.left -= units
        if self.left == 0:
            signal.raise_signal(signal.SIGTERM)


class Subject:
    """A method under examination; trainings are done once and shared by the checks."""

    def __init__(self, slug: str) -> None:
        self.slug, self.entry = slug, (plugins if slug in plugins else methods).get(slug)
        self.card: Card = self.entry.card
        self.folder = tempfile.TemporaryDirectory(prefix="ltbench-check-")
        self.before = Surroundings(without=self.entry.module)

    @cached_property
    def plan(self) -> Plan:
        """Two epochs on the embedded data set; a plug-in around plain adversarial training."""
        if self.card.kind == "plugin":
            return Request("at", DATASET, plugins=(self.slug,), protocol=PROTOCOL).to_plan()
        return Request(self.slug, DATASET, protocol=PROTOCOL).to_plan()

    def build(self, options: Mapping[str, Any]) -> Method | Plugin:
        """The method's parts, or the plug-in, for the embedded data set."""
        counts = torch.tensor(self.plan.run.train_counts, dtype=torch.float64)
        return self.entry.factory()(options, TrainInfo(counts, DATASET, 2))

    def run_folder(self, name: str) -> Path:
        """A run folder in a folder of its own, where what it builds on comes to lie too."""
        return Path(self.folder.name) / name / self.plan.run.folder_name()

    def train(self, name: str, progress: Silent | None = None) -> TrainingResult:
        """Train in a folder of its own; the same name goes on with the same run."""
        return train_plan(self.plan, self.run_folder(name), CPU, progress)

    @cached_property
    def trained(self) -> TrainingResult:
        """An uninterrupted training."""
        return self.train("whole")

    @cached_property
    def steps(self) -> int:
        """Steps of a whole training, with what it builds on."""
        return self.plan.budget + (self.plan.base.budget if self.plan.base else 0)

    @cached_property
    def as_uninterrupted(self) -> bool:
        """Whether a training that was killed in its last epoch, asked to stop between two steps of it when it went on,
        and then finished, repeats only what it must and gives the weights of the uninterrupted one. Then the same seed
        gives the same weights, too: so what is as it should be takes two trainings rather than four."""
        if current_thread() is not main_thread():  # no other hears signals
            return False
        rest = _StopAfter(self.steps)
        with suppress(KeyboardInterrupt):
            self.train("interrupted", _StopAfter(self.steps - 2))
            return False
        with listening(ends=False), suppress(Stopped):
            self.train("interrupted", _AskAfter(2))
            return False
        same = self.digest(self.train("interrupted", rest)) == self.digest(self.trained)
        last = self.plan if self.plan.budget or not self.plan.base else self.plan.base
        return same and self.steps - rest.left < last.steps_per_epoch

    @cached_property
    def step(self) -> Step:
        """A step of a fresh session on 32 images, before anything is done."""
        # What it builds on is finished by the training, so it is only looked up.
        plan, folder = self.plan, Path(self.trained.model_path).parent
        base = train_plan(plan.base, folder.parent / plan.base.run.folder_name(), CPU) if plan.base else None
        with torch.random.fork_rng(devices=[]):
            trainee = Session(plan, folder, CPU, Silent(), base).trainee
        chosen = plan.task.split.train[:: max(1, plan.train_size // 32)]
        x, y = map(torch.from_numpy, (plan.task.source.train_pixels(chosen), plan.task.source.train_labels[chosen]))
        x = to_unit(x)
        return Step(trainee, x, y, (x.flip(0), y.flip(0)), epoch=1, epochs=plan.run.recipe.epochs)

    def digest(self, result: TrainingResult) -> str:
        """Digest of the weights of a finished training."""
        return load_model(result.model_path, device="cpu").weights_sha256


def check_card(subject: Subject) -> list[str]:
    """The card is complete: nothing a reader or a citation needs is empty."""
    card, problems = subject.card, []
    for field in ("title", "summary", "group", "licence_note", "recipe_source"):
        if not getattr(card, field).strip():
            problems.append(f"card.toml: {field} is empty")
    if not card.paper.bibtex.strip().startswith("@") or "title" not in card.paper.bibtex:
        problems.append("card.toml: paper.bibtex is no BibTeX entry")
    if not (card.paper.arxiv or card.paper.url or card.paper.code):
        problems.append("card.toml: paper needs arxiv, url or code, so that a reader finds it")
    if bool(card.claims) == bool(card.claims_note.strip()):
        problems.append("card.toml: list published numbers as [[claims]], or say in claims_note why there are none")
    problems += [f"card.toml: options.{n} has no help" for n, o in card.options.items() if not o.help.strip()]
    text = _code(subject).with_name("card.toml").read_text(encoding="utf-8")
    todo = [str(number) for number, line in enumerate(text.splitlines(), 1) if "TODO" in line]
    if todo:
        lines = f"line{'s' if len(todo) > 1 else ''} {', '.join(todo)}"
        problems.append(f"card.toml still says TODO in {lines}: write what belongs there")
    return problems


def _code(subject: Subject) -> Path:
    """The method's method.py."""
    return Path(import_module(subject.entry.module).__file__ or "")


def _syntax_tree(subject: Subject) -> ast.Module:
    """The syntax tree of the method's method.py."""
    return ast.parse(_code(subject).read_text(encoding="utf-8"))


def check_interface(subject: Subject) -> list[str]:
    """method.py builds on the public interface only."""
    problems = []
    for node in ast.walk(_syntax_tree(subject)):
        if BEHIND in (getattr(node, "attr", None), getattr(node, "value", None)):
            problems.append(f"method.py:{node.lineno} names {BEHIND}, which leads behind the contract")  # type: ignore[attr-defined]
        if not isinstance(node, (ast.Import, ast.ImportFrom)):
            continue
        names = [node.module or ""] if isinstance(node, ast.ImportFrom) else [a.name for a in node.names]
        problems += [
            f"method.py:{node.lineno} imports {name}; methods import from {' and '.join(ALLOWED_IMPORTS)} only"
            for name in names
            if name.split(".")[0] == "ltrobust_bench" and not name.startswith(ALLOWED_IMPORTS)
        ]
    return problems


def check_options(subject: Subject) -> list[str]:
    """Card and method agree on the options, both tracks build, and every default survives being written out."""
    problems = []
    for track in ("fixed", "paper"):
        resolved = subject.card.resolve_options(track, {})  # type: ignore[arg-type]
        again = subject.card.resolve_options(track, {k: str(v) for k, v in resolved.items()})  # type: ignore[arg-type]
        if again != resolved:
            problems.append(f"track {track}: options do not survive being written out and read back")
        try:
            built = subject.build(resolved)
            subject.card.resolve_recipe(subject.plan.task.protocol, track, subject.plan.run.epsilon)  # type: ignore[arg-type]
        except KeyError as error:
            problems.append(f"track {track}: method.py asks for option {error}, which card.toml does not have")
            continue
        except LTBenchError as error:
            problems.append(f"track {track}: {error}")
            continue
        wanted = Plugin if subject.card.kind == "plugin" else Method
        if not isinstance(built, wanted):
            returned = type(built).__name__
            problems.append(f"track {track}: {subject.card.kind}() returned {returned}, not {wanted.__name__}")
        if isinstance(built, Method) and any(built.crafts(epoch, 2) for epoch in (1, 2)) != subject.card.crafts:
            problems.append(f"track {track}: card.toml says crafts = {str(subject.card.crafts).lower()}, method.py not")
    # Some options are read only for some values of others, or inside a loss: it is enough that the code names them.
    named = {getattr(n, "value", getattr(n, "id", None)) for n in ast.walk(_syntax_tree(subject))}
    problems += [f"method.py never reads option {n} of card.toml" for n in subject.card.options if n not in named]
    return problems


def check_training(subject: Subject) -> list[str]:
    """The whole budget is trained, the loss stays finite, and its gradient reaches what is trained."""
    plan, trained = subject.plan, subject.trained
    if len(trained.history) != plan.run.recipe.epochs:
        return [f"{len(trained.history)} epochs were trained, {plan.run.recipe.epochs} were asked for"]
    if trained.cost.steps != subject.steps:
        return [f"{trained.cost.steps} optimiser steps were counted, the budget is {subject.steps}"]
    if not trained.history:
        return []
    with torch.random.fork_rng(devices=[]):
        step = subject.step
        step.craft()
        step.update()
    if not any(p.grad is not None and p.grad.abs().sum() > 0 for p in step.trainee.network.parameters()):
        return ["the loss has no gradient: nothing would be learned"]
    return []


def check_determinism(subject: Subject) -> list[str]:
    """The same seed gives the same weights, bit for bit."""
    same = subject.as_uninterrupted or subject.digest(subject.trained) == subject.digest(subject.train("again"))
    return [] if same else ["two trainings with the same seed gave different weights"]


def check_resume(subject: Subject) -> list[str]:
    """Interrupted in the last epoch and resumed equals uninterrupted, and only that epoch is repeated; asked to stop
    between two of its steps, nothing is."""
    if subject.as_uninterrupted:
        return []
    try:
        subject.train("resumed", _StopAfter(subject.steps - 2))
        return ["training could not be interrupted in its last epoch"]
    except KeyboardInterrupt:
        resumed = subject.train("resumed")
    problems = []
    if subject.digest(resumed) != subject.digest(subject.trained):
        problems.append("a resumed training gave other weights; does a part remember something outside state_dict?")
    if resumed.forwards_here >= subject.trained.forwards_here:
        problems.append(f"resuming passed {resumed.forwards_here} images forward, as many as starting over")
    if current_thread() is not main_thread():  # no other hears signals
        return problems
    with listening(ends=False), suppress(Stopped):
        subject.train("between", _AskAfter(subject.steps - 2))
    between = subject.train("between")
    if between.forwards_here >= resumed.forwards_here:
        problems.append("training did not go on between two steps of an epoch")
    elif subject.digest(between) != subject.digest(subject.trained):
        problems.append(
            "a training that went on in the middle of an epoch gave other weights; does a part remember something of "
            "the epoch outside state_dict?"
        )
    return problems


def check_deployed(subject: Subject) -> list[str]:
    """The deployed model gives finite logits [B, C] for any image in [0, 1], each image on its own."""
    model = load_model(subject.trained.model_path, device="cpu").model
    channels, height, width = subject.plan.task.spec.shape
    generator = torch.Generator().manual_seed(0)
    x = torch.rand(6, channels, height, width, generator=generator)
    x[0], x[1] = 0.0, 1.0
    with torch.no_grad():
        logits, alone = model(x), torch.cat([model(image[None]) for image in x])
    problems = []
    if logits.shape != (6, subject.plan.task.classes):
        return [f"the deployed model returned shape {tuple(logits.shape)} for 6 images"]
    if not torch.isfinite(logits).all():
        problems.append("the deployed model returned NaN or infinite logits for images in [0, 1]")
    if not torch.allclose(logits, alone, rtol=1e-4, atol=1e-5):
        problems.append("the deployed model's logits depend on the other images of the batch")
    if model.training:
        problems.append("the deployed model is in train mode")
    return problems


def check_surroundings(subject: Subject) -> list[str]:
    """What is not the method's own is left as it was: the tensors it is given, the settings of the process, the code of
    others. Its randomness is seeded, and no image passes uncounted."""
    problems, failure = [], None
    try:
        with torch.random.fork_rng(devices=[]):
            problems = _written(subject) + _unaccounted(subject)
    except Exception as error:  # noqa: BLE001 - raised below, unless what was changed explains it
        failure = error
    problems += [f"{change}; a method changes neither settings nor other code" for change in subject.before.changes()]
    subject.before.put_back()
    if failure is not None and not problems:
        raise failure
    return problems


def _written(subject: Subject) -> list[str]:
    """Tensors into which a step of the method writes, whichever way."""
    first = subject.step
    step = Step(first.trainee, first.x, first.y, first.partners, epoch=1, epochs=first.epochs)
    kept = {"x": step.x.clone(), "y": step.y.clone()}
    step.craft()
    kept["x_adv"] = step.x_adv.clone()
    step.update()
    changed = [name for name, value in kept.items() if not value.equal(vars(step)[name])]
    return [f"the method writes into {name}, which it may only read" for name in changed]


def _unaccounted(subject: Subject) -> list[str]:
    """Random numbers that no seed of the run decides, and images passed when training is over."""
    trainee, options = subject.step.trainee, subject.card.resolve_options(subject.plan.run.track, {})
    problems = [
        f"building the method uses the global generator of {name}: before training there is no seed"
        for name in drawn(lambda: subject.build(options))
    ]
    problems += [
        f"training uses the global generator of {name}, which no seed of the run decides; torch's is seeded"
        for name in drawn(lambda: _written(subject))
        if name != "torch"
    ]
    before = trainee.counter.forwards
    counts = torch.tensor(subject.plan.run.train_counts, dtype=torch.float64)
    deployed(trainee.method, trainee.network, TrainInfo(counts, DATASET, 2))
    if trainee.counter.forwards > before:
        problems.append(f"deploy passes {trainee.counter.forwards - before} images through the network, uncounted")
    return problems


CHECKS: dict[str, Callable[[Subject], list[str]]] = {
    "card is complete": check_card,
    "keeps to the public interface": check_interface,
    "options agree with the card": check_options,
    "trains two epochs": check_training,
    "same seed, same weights": check_determinism,
    "resumed equals uninterrupted": check_resume,
    "deployed model is sane": check_deployed,
    "leaves the rest alone": check_surroundings,
}


def examine(subject: Subject, name: str) -> list[str]:
    """The problems that one check finds; a method that breaks the check is a problem, not a crash."""
    try:
        return CHECKS[name](subject)
    except LTBenchError as error:
        return [str(error)]
    except Exception as error:  # noqa: BLE001 - contributed code may raise anything
        return [f"{type(error).__name__}: {error}"]


def problems(slug: str) -> list[str]:
    """All problems of a method, each as ``check: problem``."""
    subject = Subject(slug)
    return [f"{name}: {problem}" for name in CHECKS for problem in examine(subject, name)]
