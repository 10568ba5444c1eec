"""A network as a run's policy has it computed."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

import torch
from torch import Tensor

from ltrobust_bench.api import Network, Output
from ltrobust_bench.compute import ranks
from ltrobust_bench.compute.counting import Counter, Meter
from ltrobust_bench.compute.graphs import Replayed
from ltrobust_bench.compute.memory import Splitting
from ltrobust_bench.compute.parts import as_it_was, in_parts
from ltrobust_bench.compute.sharing import share
from ltrobust_bench.compute.stand_in import INSTEAD, StandIn
from ltrobust_bench.errors import UsageError
from ltrobust_bench.plan.run import Policy
from ltrobust_bench.protocol.spec import Crafting, Precision
from ltrobust_bench.terms import BNMode


class Forwards:
    """Forwards for the outer loss, and the model that crafting attacks.

    With the reference policy both are the network itself. Whoever asks for them counts them; what passes through the
    network otherwise, because a part of a method holds it, is counted here. Where several devices compute the run, a
    pass is divided between them, whoever asks for it, and what is counted is the whole batch.

    Args:
        network: what is trained; its weights are put into the policy's memory format.
        policy: how to compute.
        precision: of the recipe. With ``bf16`` the network computes in bfloat16, logits and features come in float32;
            TF32 is a switch of the process (:mod:`ltrobust_bench.compute.precision`).
        counter: of what else passes through the network.
        say: is told in one line what is computed in another way than the policy says, which is always the network
            itself.
        parts: in which a batch passes through the network, see :mod:`ltrobust_bench.compute.parts`.

    Raises:
        UsageError: for what several devices would compute otherwise than one.
    """

    def __init__(
        self,
        network: Network,
        policy: Policy,
        precision: Precision = "fp32",
        counter: Counter | None = None,
        say: Callable[[str], None] = lambda line: None,
        parts: int = 1,
    ) -> None:
        self.network, self.policy, self.precision, self.say, self.parts = network, policy, precision, say, parts
        if parts > 1 and (policy.compile or ranks.count() > 1):
            raise UsageError("accumulate passes a batch in parts; leave it out, or --compile and --devices.")
        if policy.compile and ranks.count() > 1:
            raise UsageError("torch.compile is for one device; leave --compile out, or --devices.")
        share(network)
        self.meter = Meter(network.backbone, counter or Counter())
        if policy.memory_format == "channels_last":
            network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self._outputs, self._logits = self._compiled(network.outputs), self._compiled(network)
        self._itself = Splitting(self._logits_of_constants if policy.compile else self.logits)
        self._copy: StandIn | None = None
        self._copies = policy.crafting != "network"
        self._instead = self._itself

    def _compiled(self, function: Callable[[Tensor], Any]) -> Callable[[Tensor], Any]:
        # Batches have two sizes, an epoch's last one and the others: two graphs are faster than one for all sizes.
        return torch.compile(function, dynamic=False) if self.policy.compile else function

    def arithmetic(self, x: Tensor) -> AbstractContextManager[Any]:
        """In which the network computes on images ``x``."""
        return torch.autocast(x.device.type, torch.bfloat16) if self.precision == "bf16" else nullcontext()

    def outputs(self, x: Tensor) -> Output:
        """Logits and features in the network's present mode."""
        with self.meter.apart(), self.arithmetic(x):
            logits, features = self._in_parts(x) if self._split(x) > 1 else self._outputs(x)
        return Output(logits.float(), features.float()) if self.precision == "bf16" else Output(logits, features)

    def logits(self, x: Tensor) -> Tensor:
        """Logits in the network's present mode."""
        with self.meter.apart(), self.arithmetic(x):
            logits: Tensor = self._in_parts(x).logits if self._split(x) > 1 else self._logits(x)
        return logits.float() if self.precision == "bf16" else logits

    def _split(self, x: Tensor) -> int:
        """Parts that images ``x`` pass in: of two or more, that batch norm may have statistics."""
        return min(self.parts, len(x) // 2)

    def _in_parts(self, x: Tensor) -> Output:
        again = as_it_was(self.network.backbone)

        @contextmanager
        def apart() -> Iterator[None]:
            with self.meter.apart(), again():
                yield

        features = in_parts(self.network.backbone, x, self._split(x), apart)
        return Output(self.network.head(features), features)

    def _logits_of_constants(self, x: Tensor) -> Tensor:
        # A compiled backward computes every gradient that there is, whichever is asked for.
        with _constant(self.network):
            return self.logits(x)

    def attacked(self, x: Tensor, mode: BNMode) -> Splitting:
        """What crafting on images ``x`` attacks, with the network's present weights; the network is in ``mode``.

        Batch norm can be folded in mode ``eval`` only; elsewhere, and where there is no copy that gives the network's
        logits, it is the network itself.
        """
        if mode != "eval" or not self._copies:
            return self._itself
        try:
            with self.meter.apart():  # the copy looks whether it gives the network's logits
                if self._copy is None:
                    self._copy_of(x)
                else:
                    self._copy.refresh()
        except UsageError as error:
            self._copies, self._copy, self._instead = False, None, self._itself
            self.say(f"crafting attacks the network itself: {str(error).removesuffix(f'; {INSTEAD}')}")
        return self._instead

    def _copy_of(self, x: Tensor) -> None:
        copy = StandIn(self.network, x[:2], "bf16" if self.precision == "bf16" else self.policy.crafting)  # type: ignore[arg-type]
        self.meter.leave(copy.twin.get_submodule("backbone"))
        if copy.kind == "winograd":  # its many small parts would be one huge graph
            model: Callable[[Tensor], Tensor] = copy
        elif self.policy.compile:
            model = self._compiled(copy)
        else:
            model = Replayed(copy, self.say) if x.is_cuda and ranks.count() == 1 else copy
        self._copy, self._instead = copy, Splitting(model)


@contextmanager
def _constant(network: Network) -> Iterator[None]:
    """No weight needs a gradient here."""
    learned = [p for p in network.parameters() if p.requires_grad]
    for parameter in learned:
        parameter.requires_grad_(False)
    try:
        yield
    finally:
        for parameter in learned:
            parameter.requires_grad_(True)


def usable_policy(
    device: torch.device,
    precision: Precision | None = None,
    crafting: Crafting | None = None,
    compiled: bool = False,
    plain: bool = False,
) -> tuple[Policy | None, list[str]]:
    """The policy that a person asks for, without torch.compile where it does not work, and what is to be said about it.

    Args:
        device: where to compute.
        precision: None: the protocol's.
        crafting: what is attacked while crafting; None: what the protocol says.
        compiled: whether to compile.
        plain: the reference path, whatever the protocol says.

    Raises:
        UsageError: for the reference path with something else.
    """
    if plain:
        if crafting not in (None, "network") or compiled:
            raise UsageError("--plain is the reference path: leave it out, or --crafting and --compile.")
        return Policy(), []
    notes = []
    problem = compile_problem(device) if compiled else None
    if problem:
        compiled = False
        notes.append(f"without torch.compile, which does not work here: {problem}")
    if precision == "bf16" and device.type == "cpu" and torch.backends.cpu.get_cpu_capability() in ("DEFAULT", "AVX2"):
        notes.append("this processor has no bfloat16 arithmetic: bf16 is slower than fp32 here")
    if crafting is None and not compiled:
        return None, notes
    return Policy.asked(crafting or "network", compiled, precision), notes


def compile_problem(device: torch.device) -> str | None:
    """Why torch.compile can not be used on a device, found by trying; None if it can."""
    try:
        x = torch.ones(2, device=device, requires_grad=True)
        torch.compile(lambda z: (z * z).sum())(x).backward()
    except Exception as error:  # what is missing shows in many ways: no compiler, no Triton, an unknown Python
        return " ".join(str(error).split())[:200] or type(error).__name__
    return None
