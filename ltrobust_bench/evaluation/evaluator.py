"""Attacking a model image by image, resumably, and keeping one bit per image and attack."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from ltrobust_bench.attacks.autoattack import NAMES
from ltrobust_bench.attacks.ball import LINF, Ball
from ltrobust_bench.attacks.terms import Attack, Stage, Target
from ltrobust_bench.compute.counting import Counter, CountingModel
from ltrobust_bench.compute.memory import Splitting
from ltrobust_bench.compute.precision import Products, float32_products, full_float32, undisturbed
from ltrobust_bench.compute.sharing import shared
from ltrobust_bench.data.loader import DeviceData, to_unit
from ltrobust_bench.errors import CheckFailed, LTBenchError
from ltrobust_bench.evaluation.blame import blamed
from ltrobust_bench.evaluation.examine import MEASUREMENTS, first_places
from ltrobust_bench.evaluation.foreign import checked_logits
from ltrobust_bench.evaluation.identity import tensors_of
from ltrobust_bench.evaluation.state import State
from ltrobust_bench.interrupt import in_steps, stop_if_asked
from ltrobust_bench.plan.code import Code, joined
from ltrobust_bench.progress import Attacked, Progress, Resumed, Silent
from ltrobust_bench.protocol import Suite
from ltrobust_bench.scores.reliability import Reliability


@dataclass
class Verdict:
    """What an evaluation found.

    Attributes:
        bits: ``clean`` and each attack in the suite's order: correct on the image itself *and* under the attack,
            bool, shape [T].
        broken_by: AutoAttack's first successful attack (0 none, 1-4), uint8, shape [T]; None without AutoAttack.
        forwards, backwards: images passed through the network, over all sessions.
        seconds: over all sessions.
        forwards_here: images passed forward by this call.
        reliability: what was measured of the model, if it was asked for.
        code: of all sessions, if it was given.
        searched: images broken by what a search on a copy found; images that fooled only the copy; those of them
            that a second search, on the model, broke. Of all attacks; None: the search was on the model.
    """

    bits: dict[str, np.ndarray]
    broken_by: np.ndarray | None
    forwards: int = 0
    backwards: int = 0
    seconds: float = 0.0
    forwards_here: int = 0
    reliability: Reliability | None = None
    code: list[Code] = field(default_factory=list)
    searched: tuple[int, int, int] | None = None


@contextmanager
def frozen(model: nn.Module) -> Iterator[None]:
    """Eval mode, no parameter gradients, full float32, none of a caller's settings; restored afterwards."""
    training = [(m, m.training) for m in model.modules()]
    learned = [p for p in model.parameters() if p.requires_grad]
    model.eval()
    for parameter in learned:
        parameter.requires_grad_(False)
    try:
        with undisturbed(), full_float32():
            yield
    finally:
        for module, was in training:
            module.training = was
        for parameter in learned:
            parameter.requires_grad_(True)


def craft(name: str, function: Stage, x: Tensor, y: Tensor, position: int, epsilon: float, ball: Ball) -> Tensor:
    """What an attack's stage makes of one batch.

    Raises:
        CheckFailed: if the model gives it no gradient.
        LTBenchError: if it leaves its ball.
    """
    try:
        with blamed(f"under attack {name}"):
            adversarial = function(x, y, position)
    except CheckFailed as error:
        if "does not require grad" in str(error):
            raise CheckFailed(
                f"attack {name} got no gradient: the model's logits do not depend differentiably on the image."
            ) from None
        raise
    check_ball(name, x, adversarial, epsilon, ball)
    return adversarial


def check_ball(name: str, x: Tensor, adversarial: Tensor, epsilon: float, ball: Ball) -> None:
    """Refuse images farther than ``epsilon`` from ``x``, or outside [0, 1]."""
    if ball.left(adversarial, x, epsilon).any():
        worst = ball.distance(adversarial, x).max().item()
        low, high = adversarial.min().item(), adversarial.max().item()
        raise LTBenchError(
            f"attack {name} left its ball: {ball.name} distance {worst:.6g} for epsilon {epsilon:.6g}, "
            f"pixels from {low:.6g} to {high:.6g}; its result would not count."
        )


def evaluate_images(
    model: nn.Module,
    data: DeviceData,
    *,
    classes: int,
    epsilon: float,
    suite: Suite,
    ball: Ball = LINF,
    attacks: list[Attack] | None = None,
    identity: str = "",
    state_path: Path | None = None,
    progress: Progress | None = None,
    examined: int = 0,
    surrogates: Mapping[str, nn.Module] | None = None,
    searched: nn.Module | None = None,
    products: Products = "ieee",
    code: Code | None = None,
    cumulative: bool = False,
) -> Verdict:
    """Attack every image with every attack of the suite.

    Each attack starts from the images that the model classifies correctly; a stage sees those that the attack's
    earlier stages left standing, regrouped into full batches (as AutoAttack does).

    Args:
        model: pixels in [0, 1] to logits [B, C], on the device of ``data``.
        data: test images, ordered by (label, index), uint8.
        classes: C.
        epsilon: radius, [0, 1] pixel scale.
        suite: seed, batch size and attacks.
        ball: the threat model.
        attacks: some of the suite's attacks instead of all.
        identity: digest of what is evaluated; a stored state of something else is ignored.
        state_path: where to keep the state between batches; None: nowhere.
        progress: what to report to.
        examined: on how many images the model's reliability is measured; 0: it is not.
        surrogates: by the name of an attack that needs one, the second model on which it is crafted.
        searched: what the attacks climb instead of the model, which still confirms every success, in float32. What
            fools only this is attacked again, on the model.
        products: how ``searched`` multiplies float32 numbers.
        code: that of this process, which is kept with that of earlier sessions.
        cumulative: each attack sees only what the attacks before it left standing, and its bits are those of them all.

    Raises:
        CheckFailed: if the model's output is no finite [B, C] tensor.
        LTBenchError: if an attack leaves its ball.
    """
    return _Evaluation(
        model,
        data,
        classes=classes,
        epsilon=epsilon,
        suite=suite,
        ball=ball,
        attacks=suite.attacks if attacks is None else attacks,
        identity=identity,
        state_path=state_path,
        progress=progress or Silent(),
        examined=examined,
        surrogates=surrogates or {},
        searched=searched,
        products=products,
        code=code,
        cumulative=cumulative,
    ).run()


class _Evaluation:
    def __init__(
        self,
        model: nn.Module,
        data: DeviceData,
        *,
        classes: int,
        epsilon: float,
        suite: Suite,
        ball: Ball,
        attacks: list[Attack],
        identity: str,
        state_path: Path | None,
        progress: Progress,
        examined: int,
        surrogates: Mapping[str, nn.Module],
        searched: nn.Module | None,
        products: Products,
        code: Code | None,
        cumulative: bool,
    ) -> None:
        self.examined, self.products, self.cumulative = examined, products, cumulative
        self.counter = Counter()
        self.model = Splitting(CountingModel(shared(model), self.counter))
        self.searched = self.model if searched is None else Splitting(CountingModel(shared(searched), self.counter))
        self.data, self.classes, self.epsilon, self.batch_size = data, classes, epsilon, suite.batch_size
        self.state_path, self.progress = state_path, progress
        self.ball = ball
        others = {name: Splitting(shared(other)) for name, other in surrogates.items()}
        on_searched, self.on_model = (
            Target(climbed, classes, epsilon, ball, suite.seed, data.images.device)
            for climbed in (self.searched, self.model)
        )

        def stages(attack: Attack) -> tuple[dict[str, Stage], dict[str, Stage]]:
            """On what is searched, and on the model itself."""
            other = others.get(attack.name)
            of_copy, of_model = (attack.stages(replace(on, surrogate=other)) for on in (on_searched, self.on_model))
            return of_copy, of_model

        self.attacks = {a.named(classes): stages(a) for a in attacks}
        self.state = State.load(state_path, identity)
        if state_path is not None and state_path.exists() and self.state.clean is None:
            self.progress.note(
                f"{state_path} is of other code, weights, images or attacks, old or damaged: begun again"
            )
        self.state.code = joined(self.state.code, [] if code is None else [code])

    def run(self) -> Verdict:
        state = self.state
        with in_steps(), frozen(self.model):
            before = {name: value.clone() for name, value in tensors_of(self.model).items()} if self.examined else {}
            if state.clean is None:
                self._clean()
            else:
                done = f"{state.attack} of {len(self.attacks)} attacks, {state.stage} stages and {state.batch} batches"
                self.progress.tell(Resumed(done))
            for name in list(self.attacks)[state.attack :]:
                self._attack(name, *self.attacks[name])
                state.attack, state.stage, state.batch = state.attack + 1, 0, 0
                state.changed |= self._changed(before)
                state.save(self.state_path)
            reliability = self._examine(before) if self.examined else None
        assert state.clean is not None
        bits = {"clean": state.clean}
        bits |= {name: self._left(name) for name in self.attacks}
        auto = [name for name in bits if name in NAMES]
        return Verdict(
            bits,
            state.broken[auto[0]] if auto else None,
            state.forwards,
            state.backwards,
            state.seconds,
            self.counter.forwards,
            reliability,
            state.code,
            None if self.searched is self.model else (state.confirmed, state.unconfirmed, state.broken_again),
        )

    def _examine(self, before: dict[str, Tensor]) -> Reliability:
        """Measure what the attacks' verdict rests on; each measurement is kept as soon as it is made."""
        labels = self.data.labels.cpu().numpy()
        index = np.flatnonzero(first_places(labels, max(1, self.examined // self.classes)))
        x, y = self._images(index)
        measured = self.state.measured
        for name, measure in MEASUREMENTS.items():
            if name not in measured:
                with self._accounted(), blamed("when it was examined"):
                    measuring = partial(measure, self.on_model, x, y, self.batch_size)
                    measured[name] = self.model.fit(measuring, len(x))
        self.state.changed |= self._changed(before)
        self.state.save(self.state_path)
        return Reliability(images=len(index), state_changed=self.state.changed, **measured)

    def _changed(self, before: dict[str, Tensor]) -> bool:
        """Whether tensors of the model's state are no longer what they were when this session began."""
        after = tensors_of(self.model) if before else {}
        return any(not torch.equal(value, after[name]) for name, value in before.items())

    def _images(self, index: np.ndarray) -> tuple[Tensor, Tensor]:
        chosen = torch.from_numpy(index).to(self.data.labels.device)
        return to_unit(self.data.images[chosen]), self.data.labels[chosen]

    def _wrong(self, model: Splitting, x: Tensor, y: Tensor) -> np.ndarray:
        """Which images ``model`` does not take for ``y``."""
        logits = model.fit(lambda: checked_logits(model, x, self.classes), len(x))
        wrong: np.ndarray = (logits.argmax(dim=1) != y).cpu().numpy()
        return wrong

    def _batches(self, index: np.ndarray) -> list[np.ndarray]:
        return [index[i : i + self.batch_size] for i in range(0, len(index), self.batch_size)]

    @contextmanager
    def _accounted(self) -> Iterator[None]:
        """Add the computing of one batch to the state, and save it: a place to stop at."""
        before, began = (self.counter.forwards, self.counter.backwards), time.monotonic()
        yield
        self.state.forwards += self.counter.forwards - before[0]
        self.state.backwards += self.counter.backwards - before[1]
        self.state.seconds += time.monotonic() - began
        self.state.save(self.state_path)
        stop_if_asked(kept=self.state_path is not None)

    def _clean(self) -> None:
        total = len(self.data)
        correct, began = np.zeros(total, dtype=bool), time.monotonic()
        with self._accounted():
            for index in self._batches(np.arange(total)):
                x, y = self._images(index)
                correct[index] = ~self._wrong(self.model, x, y)
            self.state.clean = correct
        self.progress.note(f"clean accuracy {correct.mean():.1%} on {total} images")
        self._tell("clean", total, correct, began)

    def _attack(self, attack: str, on_searched: dict[str, Stage], on_model: dict[str, Stage]) -> None:
        state = self.state
        assert state.clean is not None
        broken = state.broken.setdefault(attack, np.zeros(len(self.data), dtype=np.uint8))
        stages = list(on_searched.items())
        while state.stage < len(stages):
            name, function = stages[state.stage]
            code = state.stage + 1
            # As it was when the stage began: what this stage already broke was standing then.
            standing = np.flatnonzero(self._before(attack) & ((broken == 0) | (broken == code)))
            batches = self._batches(standing)
            label = attack if len(stages) == 1 else f"{attack}/{name}"
            began = time.monotonic()
            self.progress.start(label, len(standing), sum(len(b) for b in batches[: state.batch]))
            while state.batch < len(batches):
                index = batches[state.batch]
                with self._accounted():
                    broken[self._fooled(index, label, function, on_model[name])] = code
                    state.batch += 1
                self.progress.advance(len(index), lambda: f"robust so far {self._left(attack).mean():.1%}")
            self._tell(label, len(standing), self._left(attack), began)
            state.stage, state.batch = state.stage + 1, 0
        self.progress.note(f"{attack} accuracy {self._left(attack).mean():.1%}")

    def _before(self, attack: str) -> np.ndarray:
        """The images that an attack starts from, bool, shape [T]."""
        assert self.state.clean is not None
        names = list(self.attacks)
        earlier = names[: names.index(attack)] if self.cumulative else []
        return np.logical_and.reduce([self.state.clean, *(self.state.broken[name] == 0 for name in earlier)])

    def _left(self, attack: str) -> np.ndarray:
        """What an attack has left standing so far, bool, shape [T]."""
        return self._before(attack) & (self.state.broken[attack] == 0)

    def _tell(self, attack: str, images: int, left: np.ndarray, began: float) -> None:
        self.progress.tell(Attacked(attack, images, int(left.sum()), float(left.mean()), time.monotonic() - began))

    def _fooled(self, index: np.ndarray, label: str, function: Stage, on_model: Stage) -> np.ndarray:
        """Which images of a batch a stage breaks. An attack stops at an image that fools what it climbs; where that is
        a copy and the model itself is not fooled, the image is attacked once more, on the model."""
        x, y = self._images(index)
        if self.searched is self.model:
            return index[self._wrong(self.model, self._craft(self.model, label, function, x, y), y)]
        with float32_products(self.products):
            adversarial = self._craft(self.searched, label, function, x, y)
            stopped = self._wrong(self.searched, adversarial, y)
        wrong = self._wrong(self.model, adversarial, y)
        again = np.flatnonzero(stopped & ~wrong)
        self.state.confirmed += int(wrong.sum())
        self.state.unconfirmed += len(again)
        if len(again):
            x, y = self._images(index[again])
            wrong[again] = self._wrong(self.model, self._craft(self.model, label, on_model, x, y), y)
            self.state.broken_again += int(wrong[again].sum())
        return index[wrong]

    def _craft(self, climbed: Splitting, label: str, function: Stage, x: Tensor, y: Tensor) -> Tensor:
        # Every attack seeds itself by the batch's position, so it may be begun again with smaller parts.
        return climbed.fit(lambda: craft(label, function, x, y, self.state.batch, self.epsilon, self.ball), len(x))
