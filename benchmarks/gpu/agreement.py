"""Two steps of each method, device against CPU, float32: adversarial images, losses, gradients, weights, statistics."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from notes import DEVICE, TINY, Notes, left, main
from torch import Tensor

from ltrobust_bench.cards import methods, plugins
from ltrobust_bench.compute.counting import Counter
from ltrobust_bench.compute.precision import full_float32
from ltrobust_bench.plan.make import Plan, make_plan
from ltrobust_bench.training.build import (
    build_method,
    build_plugins,
    companion_of,
    deployed,
    network_of,
    trained_parameters,
)
from ltrobust_bench.training.step import Step, Trainee

CPU = torch.device("cpu")
LIMITS = {"pixels": 0.02, "loss": 2e-5, "gradient": 2e-3, "weights": 1e-4, "statistics": 1e-4}
"""Relative differences, and the share of pixels that an attack moved otherwise (a gradient near 0 may turn its sign).
Rounding stays far below; a wrong device, type or TF32 is far above."""
LATER = 10
"""Times the limits in the second step, whose weights differ already."""


def relative(a: Sequence[Tensor], b: Sequence[Tensor]) -> float:
    """Distance of tensors from others, as a share of their length."""
    pairs = [(p.detach().cpu().double(), q.detach().cpu().double()) for p, q in zip(a, b, strict=True)]
    length = sum(float((p**2).sum()) for p, _ in pairs) ** 0.5
    return sum(float(((p - q) ** 2).sum()) for p, q in pairs) ** 0.5 / max(length, 1e-12)


def trainee(plan: Plan, device: torch.device) -> Trainee:
    """What is trained, from the same weights on either device."""
    run, shape = plan.run, plan.task.spec.shape
    method, info = build_method(run.method, run.options, run.train_counts, run.dataset, run.recipe.epochs, device)
    torch.manual_seed(0)
    network = network_of(run, shape, method).to(device)
    teacher = None
    if plan.base is not None and plan.card.base is not None and plan.card.base.role == "teacher":
        base = plan.base.run
        its = build_method(base.method, base.options, base.train_counts, base.dataset, base.recipe.epochs, device)
        torch.manual_seed(1)
        teacher = deployed(its[0], network_of(base, shape, its[0]).to(device), its[1])
        teacher = teacher.requires_grad_(False)
    torch.manual_seed(2)
    companion = companion_of(run, shape, method)
    companion = companion and companion.to(device)
    moved = trained_parameters(network, method, companion, 5e-4)
    optimizer = torch.optim.SGD(moved, lr=0.1, momentum=0.9, weight_decay=5e-4)
    around = build_plugins(run.plugins, run.options, info)
    parts = (network, method, run.recipe, optimizer, Counter(), around, teacher, run.policy, plan.task.ball)
    return Trainee(*parts, companion=companion)


def compare(slug: str, around: tuple[str, ...] = (), model: str = "small", images: int = 64, **settings: Any) -> Any:
    """Differences after a step in the first epoch and one in the last, in between of which warm-ups end."""
    plan = make_plan(slug, "digits-lt", protocol="digits-v0", plugins=around, settings=settings, model=model)
    epochs = plan.run.recipe.epochs
    if epochs == 0:
        return "trains nothing"
    torch.manual_seed(3)
    shape = plan.task.spec.shape
    x, y = torch.rand(images, *shape), torch.randint(0, 10, (images,))
    start = (x + 0.15 * (2 * torch.rand(images, *shape) - 1)).clamp(0, 1)
    made: dict[Any, Any] = {}
    with full_float32():
        for device in (CPU, DEVICE):
            trained = trainee(plan, device)
            for epoch in (1, epochs):
                step = Step(trained, x.to(device), y.to(device), epoch=epoch, epochs=epochs)
                made[device, epoch, "pixels"] = step.craft(start=start.to(device)).detach().cpu()
                step.x_adv = made[CPU, epoch, "pixels"].to(device)
                made[device, epoch, "loss"] = [step.update().detach().cpu()]
                weights = [p for p in trained.network.parameters() if p.requires_grad]
                numbers = [b for b in trained.network.buffers() if b.is_floating_point()]
                gradients = [p.grad for p in weights if p.grad is not None]
                for name, tensors in (("gradient", gradients), ("weights", weights), ("statistics", numbers)):
                    made[device, epoch, name] = [tensor.detach().cpu().clone() for tensor in tensors]
                for memory in trained.memories.values():
                    memory.on_epoch_end(epoch, trained.network)
    found, outside = {}, []
    for epoch in (1, epochs):
        for name, limit in LIMITS.items():
            here, there = made[CPU, epoch, name], made[DEVICE, epoch, name]
            value = float(((here - there).abs() > 1e-5).float().mean()) if name == "pixels" else relative(here, there)
            found[f"{name} {epoch}"] = float(f"{value:.2g}")
            if not value <= limit * (1 if epoch == 1 else LATER):
                outside.append(f"{name} {epoch}")
    return {"outside": outside, **found}


def work(notes: Notes) -> None:
    names = [slug for slug in methods.names() if slug not in plugins]
    cases: list[tuple[str, dict[str, Any]]] = [(slug, {}) for slug in (names[:4] if TINY else names)]
    cases += [("at", {"around": ("awp",)}), ("at", {"around": ("robustlt",)}), ("at", {"attack.bn_mode": "train"})]
    cases += [("reat", {"tail": "pairwise", "attack.bn_mode": "batch", "count_at": "after"})]
    cases += [] if TINY else [("reat", {"model": model, "images": 32}) for model in ("resnet18", "preact-resnet18")]
    outside = []
    for slug, more in cases:
        name = f"{slug} {more}" if more else slug
        if left() < 5:
            notes.put("no time left before", name)
            break
        with notes.finding(f"steps/{name}"):
            result = compare(slug, **more)
            notes.put(f"steps/{name}", result)
            outside += [name] if isinstance(result, dict) and result["outside"] else []
    notes.put("outside the limits", outside)


if __name__ == "__main__":
    main("agreement", work)
