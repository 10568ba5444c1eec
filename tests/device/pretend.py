"""A pretend CUDA device in the CPU's memory, for machines without a GPU.

Within :func:`pretend_cuda` tensors can be put on ``cuda:0``. They are computed by the CPU, so a program that is right
comes out bit for bit as on the CPU; but what a GPU refuses is refused here, too:

- operations on tensors of both devices, and generators of the wrong device, raise :class:`WrongDevice`;
- a pretend tensor has no numpy array.

What makes a GPU wait for its host is written down with the line of code that asked: ``.item()``, a branch on a value,
``nonzero``, an index by booleans, a copy to the host (``Log.waits``); and every copy from the host (``Log.copies``).

It says nothing of speed, of memory, or of a GPU's rounding. Its generators draw the CPU's numbers.
"""

from __future__ import annotations

import collections
import contextlib
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode

aten = torch.ops.aten
CPU, CUDA = torch.device("cpu"), torch.device("cuda", 0)
NAME = "pretend GPU"
INDEXING = {
    aten.index.Tensor,
    aten.index_put_.default,
    aten.index_put.default,
    aten._index_put_impl_.default,
    aten._unsafe_index.Tensor,
}
CROSSING = {aten.copy_.default, aten._to_copy.default}
"""Operations that may see both devices."""
FILLING = {aten.fill_.Tensor, aten.fill.Tensor, aten.masked_fill_.Tensor, aten.masked_fill.Tensor}
"""They take a single number from either device."""
WAITING = {
    aten._local_scalar_dense.default: "a value",
    aten.is_nonzero.default: "a value",
    aten.equal.default: "equal",
    aten.nonzero.default: "nonzero",
    aten.masked_select.default: "masked_select",
    aten.unique_dim.default: "unique",
    aten._unique2.default: "unique",
    aten.repeat_interleave.Tensor: "repeat_interleave",
}
"""Operations whose result, or its size, the host must know."""
OURS = ("/ltrobust_bench/", "/baselines/", "/benchmarks/", "/pyautoattack/")


class WrongDevice(RuntimeError):
    """What CUDA would have refused."""


@dataclass
class Log:
    """What happened, by the line of code that asked for it."""

    waits: collections.Counter[str] = field(default_factory=collections.Counter)
    copies: collections.Counter[str] = field(default_factory=collections.Counter)

    def clear(self) -> None:
        """Forget it."""
        self.waits.clear()
        self.copies.clear()

    def wait(self, what: str) -> None:
        self.waits[f"{what} @ {_asked()}"] += 1

    def copy(self, what: str) -> None:
        self.copies[f"{what} @ {_asked()}"] += 1


LOG = Log()


def _asked() -> str:
    """The innermost two lines of ours that are being executed."""
    frame, found = sys._getframe(1), list[str]()
    while frame is not None and len(found) < 2:
        name = frame.f_code.co_filename
        if any(part in name for part in OURS) and "/tests/" not in name:
            path = Path(name)
            found.append(f"{path.parent.name}/{path.name}:{frame.f_lineno}")
        frame = frame.f_back  # type: ignore[assignment]
    return " < ".join(found)


class Pretend(Tensor):
    """A tensor on the pretend device: a wrapper around one of the CPU's."""

    inner: Tensor

    @staticmethod
    def __new__(cls, real: Tensor, requires_grad: bool = False) -> Pretend:
        assert type(real) is Tensor, type(real)
        wrapper = Tensor._make_wrapper_subclass(
            cls,
            real.size(),
            strides=real.stride(),
            storage_offset=real.storage_offset(),
            dtype=real.dtype,
            layout=real.layout,
            device="cpu",
            requires_grad=requires_grad,
        )
        wrapper.inner = real
        return wrapper

    device = property(lambda self: CUDA)  # type: ignore[assignment]
    is_cuda = property(lambda self: True)  # type: ignore[assignment]
    is_cpu = property(lambda self: False)  # type: ignore[assignment]

    def __repr__(self, *_: Any, **__: Any) -> str:
        return f"Pretend({self.inner})"

    def __format__(self, spec: str) -> str:
        return format(self.item(), spec) if self.dim() == 0 else repr(self)

    __torch_function__ = torch._C._disabled_torch_function_impl

    @classmethod
    def __torch_dispatch__(cls, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return dispatched(function, args, kwargs or {})


def mapped(change: Callable[[Any], Any], value: Any) -> Any:
    """``value`` with every leaf of its tuples, lists and dicts changed."""
    if type(value) in (tuple, list):
        return type(value)([mapped(change, part) for part in value])
    if isinstance(value, dict):
        return {name: mapped(change, part) for name, part in value.items()}
    return change(value)


def tensors_in(value: Any, found: list[Tensor]) -> list[Tensor]:
    if isinstance(value, Tensor):
        found.append(value)
    elif isinstance(value, (tuple, list)):
        for part in value:
            tensors_in(part, found)
    elif isinstance(value, dict):
        tensors_in(list(value.values()), found)
    return found


def on_cuda(device: Any) -> bool:
    return device is not None and torch.device(device).type == "cuda"


def raised(tensor: Tensor) -> Pretend:
    """A tensor of the CPU as one of the pretend device."""
    return Pretend(tensor.as_subclass(Tensor))


def dispatched(function: Any, args: Any, kwargs: dict[str, Any]) -> Any:
    """One operation of torch: checked, noted, computed by the CPU, and its result put where CUDA would have it."""
    tensors = tensors_in(list(kwargs.values()), tensors_in(args, []))
    there = [t for t in tensors if isinstance(t, Pretend)]
    here = [t for t in tensors if not isinstance(t, Pretend)]
    if there and here and function not in CROSSING:
        _refuse_mixture(function, args, there, here)
    if there:
        _note_waiting(function, args)
    on_device = _result_on_device(function, args, kwargs, bool(there))
    if kwargs.get("device") is not None:
        kwargs = {**kwargs, "device": CPU}
    if kwargs.get("pin_memory"):
        kwargs = {**kwargs, "pin_memory": False}
    args, kwargs = mapped(lambda t: t.inner if isinstance(t, Pretend) else t, (args, kwargs))
    result = function(*args, **kwargs)
    if not on_device:
        return result
    back = {id(t.inner): t for t in there}  # what was changed in place stays the same tensor

    def put(leaf: Any) -> Any:
        if not isinstance(leaf, Tensor) or isinstance(leaf, Pretend):
            return leaf
        return back[id(leaf)] if id(leaf) in back else Pretend(leaf)

    return mapped(put, result)


def _refuse_mixture(function: Any, args: Any, there: list[Pretend], here: list[Tensor]) -> None:
    """CUDA takes CPU tensors as indices, and single numbers in operations that go element by element."""
    odd = [t for t in here if t.dim() > 0]
    if function in INDEXING:
        places = {id(t) for t in args[1] if t is not None}
        if isinstance(args[0], Pretend):
            for _ in (t for t in odd if id(t) in places):
                LOG.copy("an index of the CPU")
            odd = [t for t in odd if id(t) not in places]
        else:
            odd = list(there)
    elif (
        not odd
        and function not in FILLING
        and torch.Tag.pointwise not in function.tags
        and "foreach" not in str(function)
    ):
        odd = here
    if odd:
        shapes = [(type(t).__name__, tuple(t.shape)) for t in (*there, *here)]
        raise WrongDevice(f"Expected all tensors to be on the same device: {function} of {shapes} @ {_asked()}")


def _note_waiting(function: Any, args: Any) -> None:
    if function in WAITING:
        LOG.wait(WAITING[function])
    if function in INDEXING and any(t is not None and t.dtype in (torch.bool, torch.uint8) for t in args[1]):
        filled = function not in (aten.index.Tensor, aten._unsafe_index.Tensor)
        if not (filled and len(args[1]) == 1 and args[2].numel() == 1):  # that is masked_fill
            LOG.wait("an index by booleans")


def _result_on_device(function: Any, args: Any, kwargs: dict[str, Any], any_there: bool) -> bool:
    """Whether the result is on the pretend device; copies over the border are noted."""
    device, on_device = kwargs.get("device"), any_there
    if device is not None:
        # C++ believes that a pretend tensor is on the CPU and says so when it casts; moves by Python are Functions'.
        copies = function is aten._to_copy.default or "_like" in str(function) or "new_" in str(function)
        on_device = on_cuda(device) or (any_there and copies)
        if function is aten._to_copy.default and on_cuda(device) and not isinstance(args[0], Pretend):
            LOG.copy(f"{tuple(args[0].shape)}")
    if function is aten.copy_.default:
        into, source = args[0], args[1]
        on_device = isinstance(into, Pretend)
        if on_device and not isinstance(source, Pretend):
            LOG.copy(f"{tuple(source.shape)}")
        elif not on_device and isinstance(source, Pretend):
            LOG.wait("a copy to the host")
    return on_device


class Dispatch(TorchDispatchMode):
    """Operations of tensors of the CPU, which may ask for the device."""

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return dispatched(function, args, kwargs or {})


class Move(torch.autograd.Function):
    """A tensor on the other device, and its gradient back."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, to_cuda: bool, dtype: torch.dtype, layout: Any) -> Tensor:
        ctx.was_there = isinstance(x, Pretend)
        form = {} if layout is None else {"memory_format": layout}
        if to_cuda:
            LOG.copy(f"{tuple(x.shape)}")
            return raised(x.detach().to(dtype).clone(**form))
        LOG.wait("a copy to the host")
        assert isinstance(x, Pretend)
        return x.inner.detach().to(dtype).clone(**form)

    @staticmethod
    def backward(ctx: Any, *gradients: Any) -> Any:
        gradient = gradients[0]
        return (raised(gradient) if ctx.was_there else gradient.inner), None, None, None


class Generator:
    """A generator of the pretend device; it draws what one of the CPU draws, and its state is not one of the CPU's."""

    makes = torch.Generator
    mark = torch.tensor([1], dtype=torch.uint8)

    def __new__(cls, device: Any = "cpu") -> Any:
        """In place of ``torch.Generator``, which is a class: modules name it in annotations as they are imported."""
        return super().__new__(cls) if on_cuda(device) else cls.makes(device)

    def __init__(self, device: Any) -> None:
        self.device, self.real = CUDA, self.makes()

    def manual_seed(self, seed: int) -> Generator:
        self.real.manual_seed(seed)
        return self

    def get_state(self) -> Tensor:
        return torch.cat([self.real.get_state(), self.mark])

    def set_state(self, state: Tensor) -> Generator:
        if len(state) != len(self.real.get_state()) + 1:
            raise RuntimeError("RNG state is wrong size")
        self.real.set_state(state[:-1].clone())
        return self


def _with_generator(on_device: bool, kwargs: dict[str, Any]) -> dict[str, Any]:
    """Keyword arguments with the CPU's generator, which must be asked for draws on its own device.

    Raises:
        WrongDevice: if it is not.
    """
    generator = kwargs.get("generator")
    if generator is None:
        return kwargs
    if isinstance(generator, Generator) != on_device:
        wanted, given = ("cuda", "cpu") if on_device else ("cpu", "cuda")
        raise WrongDevice(f"Expected a '{wanted}' device type for generator but found '{given}' @ {_asked()}")
    return {**kwargs, "generator": generator.real} if on_device else kwargs


def drawing(original: Callable[..., Tensor]) -> Callable[..., Tensor]:
    """A function that draws a new tensor (``torch.rand``), on either device."""

    def draw(*args: Any, **kwargs: Any) -> Tensor:
        on_device = on_cuda(kwargs.get("device"))
        kwargs = _with_generator(on_device, kwargs)
        if on_device:
            kwargs = {**kwargs, "device": "cpu"}
        followed = kwargs.pop("requires_grad", False)
        drawn = original(*args, **kwargs)
        if on_device and not isinstance(drawn, Pretend):
            drawn = raised(drawn)
        return drawn.requires_grad_() if followed else drawn

    return draw


IN_PLACE = {Tensor.uniform_, Tensor.normal_, Tensor.bernoulli_, Tensor.random_, Tensor.exponential_}
"""Methods that draw into a tensor."""


class Functions(TorchFunctionMode):
    """Calls of torch by Python, which name devices."""

    def __torch_function__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        there = bool(args) and isinstance(args[0], Pretend)
        if function is Tensor.device.__get__:  # type: ignore[attr-defined]
            return CUDA if there else function(*args)
        if function is Tensor.is_cuda.__get__:  # type: ignore[attr-defined]
            return there
        if function in (Tensor.to, Tensor.cpu, Tensor.cuda):
            place = {Tensor.to: (), Tensor.cpu: ("cpu",), Tensor.cuda: ("cuda",)}[function]
            return self.moved(args[0], (*args[1:], *place), kwargs)
        if there and function in (Tensor.numpy, Tensor.__array__):
            raise TypeError(f"can't convert cuda:0 device type tensor to numpy @ {_asked()}")
        if there and function is Tensor.tolist:
            LOG.wait("a list of values")
            return args[0].inner.tolist()
        if function in (torch.tensor, torch.as_tensor, torch.asarray):
            return self.made(function, args, kwargs)
        if (function in IN_PLACE and there) or function in (torch.bernoulli, torch.multinomial):
            kwargs = _with_generator(there, kwargs)
        return function(*args, **kwargs)

    def made(self, function: Any, args: Any, kwargs: dict[str, Any]) -> Any:
        """A tensor of numbers."""
        content = args[0]
        if isinstance(content, Tensor) and function is not torch.tensor:
            asked = {name: value for name, value in kwargs.items() if value is not None}
            return self.moved(content, (), asked) if asked else content
        if isinstance(content, (list, tuple)) and any(isinstance(value, Pretend) for value in content):
            LOG.wait("a list of the device's values")
        if not on_cuda(kwargs.get("device")):
            return function(*args, **kwargs)
        LOG.copy("numbers of Python")
        return raised(function(*args, **{**kwargs, "device": "cpu"}))

    def moved(self, x: Tensor, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Tensor:
        """``x.to(...)``."""
        device, dtype = kwargs.get("device"), kwargs.get("dtype")
        for given in args:
            if isinstance(given, torch.dtype):
                dtype = given
            elif isinstance(given, Tensor):
                device, dtype = (CUDA if isinstance(given, Pretend) else CPU), given.dtype
            elif isinstance(given, (str, torch.device)):
                device = torch.device(given)
        layout, there = kwargs.get("memory_format"), isinstance(x, Pretend)
        if device is not None and on_cuda(device) != there:
            return Move.apply(x, not there, dtype or x.dtype, layout)
        asked = {"dtype": dtype, "memory_format": layout, "copy": kwargs.get("copy") or None}
        asked = {name: value for name, value in asked.items() if value is not None}
        return x.to(**asked) if asked else x


def lowered(leaf: Any) -> Any:
    return leaf.inner.detach().clone() if isinstance(leaf, Pretend) else leaf


@contextlib.contextmanager
def patched(changes: list[tuple[Any, str, Any]]) -> Iterator[None]:
    before = [(place, name, getattr(place, name)) for place, name, _ in changes]
    for place, name, value in changes:
        setattr(place, name, value)
    try:
        yield
    finally:
        for place, name, value in reversed(before):
            setattr(place, name, value)


def _changes() -> list[tuple[Any, str, Any]]:
    """What of torch, and of what stores tensors, asks for a device without an operation."""
    from ltrobust_bench.training import checkpoint

    state = {"seed": 0}

    def seed(value: int) -> None:
        state["seed"] = int(value) % 2**62

    def set_state(value: Tensor, device: Any = "cuda") -> None:
        state["seed"] = int(value[0])

    one_hot, autocast = F.one_hot, torch.autocast
    save, load, pack = torch.save, torch.load, checkpoint.save

    def loaded(file: Any, map_location: Any = None, **kwargs: Any) -> Any:
        content = load(file, **kwargs)
        if not on_cuda(map_location):
            return content
        return mapped(lambda leaf: raised(leaf.detach()) if isinstance(leaf, Tensor) else leaf, content)

    changes: list[tuple[Any, str, Any]] = [
        (torch.cuda, "is_available", lambda: True),
        (torch.cuda, "device_count", lambda: 1),
        (torch.cuda, "current_device", lambda: 0),
        (torch.cuda, "get_device_name", lambda device=None: NAME),
        (torch.cuda, "get_device_capability", lambda device=None: (9, 0)),
        (torch.cuda, "_lazy_init", lambda: None),
        (torch.cuda, "empty_cache", lambda: None),
        (torch.cuda, "synchronize", lambda device=None: None),
        (torch, "Generator", Generator),
        (torch, "autocast", lambda kind, *a, **k: autocast("cpu" if kind == "cuda" else kind, *a, **k)),
        (torch, "save", lambda content, file, **k: save(mapped(lowered, content), file, **k)),
        (torch, "load", loaded),
        (checkpoint, "save", lambda weights, **k: pack({n: lowered(v) for n, v in weights.items()}, **k)),
        # It takes another way for subclasses of Tensor.
        (F, "one_hot", lambda t, n=-1: raised(one_hot(t.inner, n)) if isinstance(t, Pretend) else one_hot(t, n)),
        (sys.modules["torch.optim.optimizer"], "_foreach_supported_types", [Tensor, torch.nn.Parameter, Pretend]),
    ]
    health = "_accelerator_graph_capture_health_check"
    if hasattr(torch.optim.Optimizer, health):  # it asks the driver
        changes.append((torch.optim.Optimizer, health, lambda self: None))
    for module in (torch.cuda, torch.cuda.random):
        changes += [
            (module, "get_rng_state", lambda device="cuda": torch.tensor([state["seed"]])),
            (module, "set_rng_state", set_state),
            (module, "manual_seed", seed),
            (module, "manual_seed_all", seed),
        ]
    names = ("rand", "randn", "randint", "randperm", "normal")
    return changes + [(torch, name, drawing(getattr(torch, name))) for name in names]


@contextlib.contextmanager
def pretend_cuda() -> Iterator[Log]:
    """A machine with one pretend GPU; what is written down begins anew."""
    LOG.clear()
    swap = torch.__future__.get_swap_module_params_on_conversion()
    torch.__future__.set_swap_module_params_on_conversion(True)
    try:
        with patched(_changes()), Functions(), Dispatch():
            yield LOG
    finally:
        torch.__future__.set_swap_module_params_on_conversion(swap)
