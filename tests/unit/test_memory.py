"""Batches that do not fit are split without changing the result; nothing grows over epochs."""

from __future__ import annotations

import gc
from functools import partial

import numpy as np
import pytest
import torch
from torch import nn

from ltrobust_bench.api import Network
from ltrobust_bench.attacks.autoattack import AutoAttack
from ltrobust_bench.attacks.pgd import PGD
from ltrobust_bench.attacks.transfer import Transfer
from ltrobust_bench.compute import forwards
from ltrobust_bench.compute.memory import Splitting, out_of_memory
from ltrobust_bench.data.loader import DeviceData
from ltrobust_bench.errors import LTBenchError
from ltrobust_bench.evaluation.evaluator import evaluate_images
from ltrobust_bench.evaluation.observe import observe
from ltrobust_bench.models.small import SmallNet
from ltrobust_bench.plan.make import make_plan
from ltrobust_bench.plan.run import Policy
from ltrobust_bench.progress import Silent
from ltrobust_bench.protocol import Suite
from ltrobust_bench.training.monitor import monitor
from ltrobust_bench.training.trainer import Session
from ltrobust_bench.verbs import evaluate, load_model

CPU = torch.device("cpu")


class Narrow(nn.Module):
    """A model that only a few images at a time fit into; ``graph`` only under a gradient."""

    def __init__(self, model, most, graph=False, error=torch.OutOfMemoryError):
        super().__init__()
        self.model, self.most, self.graph, self.error, self.seen = model, most, graph, error, []

    def forward(self, x):
        if len(x) > self.most and (not self.graph or torch.is_grad_enabled()):
            raise self.error("DefaultCPUAllocator: can't allocate memory")
        self.seen.append(len(x))
        return self.model(x)


def net(dtype=torch.float64):
    torch.manual_seed(0)
    return nn.Sequential(SmallNet(1), nn.Linear(64, 10)).to(dtype).eval()


@pytest.mark.parametrize("error", [torch.OutOfMemoryError, RuntimeError])
def test_logits_and_gradients_of_a_split_batch(error):
    model, x = net(), torch.rand(10, 1, 8, 8, dtype=torch.float64)
    narrow = Splitting(Narrow(model, 3, error=error))

    def work(asked):
        images = x.clone().requires_grad_(True)
        logits = asked(images)
        return logits.detach(), torch.autograd.grad(logits.logsumexp(1).sum(), images)[0]

    for got, wanted in zip(narrow.fit(lambda: work(narrow), len(x)), work(model), strict=True):
        assert torch.allclose(got, wanted, rtol=1e-12)
    assert narrow.parts == 4 and max(narrow.model.seen) == 3


def test_only_one_parts_activations_are_kept():
    """What is saved for the backward pass does not grow with the batch."""
    model, x = net(), torch.rand(16, 1, 8, 8, dtype=torch.float64, requires_grad=True)

    def kept(parts):
        splitting, total = Splitting(model), 0
        splitting.parts = parts

        def count(value):
            nonlocal total
            total += value.numel()
            return value

        with torch.autograd.graph.saved_tensors_hooks(count, lambda value: value):
            splitting(x)
        return total

    assert kept(8) < kept(1) / 4


def test_one_image_that_does_not_fit_is_an_error():
    narrow = Splitting(Narrow(net(), 0))
    with pytest.raises(LTBenchError, match="^4 images do not fit in memory, not even passed one at a time"):
        narrow.fit(lambda: narrow(torch.rand(4, 1, 8, 8, dtype=torch.float64)), 4)
    with pytest.raises(RuntimeError, match="something else"):
        narrow.fit(lambda: (_ for _ in ()).throw(RuntimeError("something else")), 4)


@pytest.mark.parametrize("graph", [False, True])
def test_an_evaluation_that_is_split_has_the_same_verdict(graph):
    pixels = np.random.default_rng(0).integers(0, 256, (40, 1, 8, 8), dtype=np.uint8)
    torch.manual_seed(0)
    model = nn.Sequential(nn.Flatten(), nn.Linear(64, 10)).eval()
    with torch.no_grad():
        labels = model(torch.from_numpy(pixels) / 255.0).argmax(1).numpy()
    suite = Suite(
        seed=0,
        batch_size=16,
        attacks=[
            PGD(name="pgd", kind="pgd", steps=3, step_size="epsilon/2", start="uniform", restarts=2),
            AutoAttack(
                name="autoattack", kind="autoattack", steps=5, restarts=1, targets=2, queries=10, p_init=0.8, rho=0.75
            ),
        ],
    )
    data = DeviceData.of(pixels, labels, CPU)
    whole, split = (
        evaluate_images(m, data, classes=10, epsilon=0.01, suite=suite) for m in (model, Narrow(model, 5, graph))
    )
    assert all(np.array_equal(whole.bits[name], split.bits[name]) for name in whole.bits)
    assert 0 < whole.bits["pgd"].sum() < 40
    with pytest.raises(LTBenchError, match="do not fit in memory"):
        evaluate_images(Narrow(model, 0), data, classes=10, epsilon=0.01, suite=suite)


def session(folder, method="reat", **request):
    plan = make_plan(method, "digits-lt", protocol="smoke", epochs=4, limit_train=100, **request)
    return Session(plan, folder, CPU, Silent(), None)


def weights(folder):
    """Weights after a short training."""
    return load_model(session(folder).run().model_path, device="cpu").model.state_dict()


def test_crafting_is_split_and_training_ends_with_the_same_weights(tmp_path, monkeypatch):
    whole = weights(tmp_path / "whole")
    seen = []

    class Small(Splitting):
        def __init__(self, model):
            super().__init__(Narrow(None, 20))
            self.model.model = model
            seen.append(self)

    monkeypatch.setattr(forwards, "Splitting", Small)
    split = weights(tmp_path / "split")
    assert seen[0].parts == 4 and set(seen[0].model.seen) <= set(range(1, 21))
    assert all(torch.allclose(value, split[name], atol=1e-4) for name, value in whole.items())


def test_a_training_step_is_never_split(tmp_path, monkeypatch):
    training = session(tmp_path)
    network = training.trainee.network
    outputs = network.outputs

    def full(x):
        if network.training:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return outputs(x)

    training.trainee.forwards._outputs = full
    with pytest.raises(LTBenchError, match=r"64 images does not fit.*batch norm.*--precision bf16.*batch_size"):
        training.run()


def test_an_attack_that_needs_the_batchs_statistics_is_never_split(tmp_path):
    training = session(tmp_path, track="paper", settings={"attack.bn_mode": "batch"})
    training.trainee.forwards._itself.model = Narrow(training.trainee.network, 20)
    with pytest.raises(LTBenchError, match=r"images does not fit.*never split unasked"):
        training.run()


def test_the_accuracy_while_training_passes_no_more_images_than_fit(tmp_path):
    """128 images are monitored, and a batch that was made smaller because no more fit may have fewer."""
    training = session(tmp_path)
    looked = partial(monitor, training.trainee, training.plan.run, training.data, training.held_out)
    whole, network = looked(), training.trainee.network
    training.trainee.network = Narrow(network, 20, graph=True)
    assert looked() == whole
    assert max(training.trainee.network.seen) <= 20


def test_a_second_model_that_attacks_are_crafted_on_is_split():
    pixels = np.random.default_rng(0).integers(0, 256, (40, 1, 8, 8), dtype=np.uint8)
    model, other = (nn.Sequential(nn.Flatten(), nn.Linear(64, 10)).eval() for _ in range(2))
    data = DeviceData.of(pixels, np.repeat(np.arange(10), 4), CPU)
    terms = {"classes": 10, "epsilon": 0.1, "suite": Suite(seed=0, batch_size=40, attacks=[Transfer.standard()])}
    with torch.no_grad():
        data.labels = model(data.images / 255.0).argmax(1)
    seconds = (other, Narrow(other, 5, graph=True))
    whole, split = (evaluate_images(model, data, surrogates={"transfer": second}, **terms) for second in seconds)
    assert np.array_equal(whole.bits["transfer"], split.bits["transfer"])


def test_a_models_measurements_are_split():
    """Attacks that search on a copy fit where a backward pass of the network itself does not."""
    pixels = np.random.default_rng(0).integers(0, 256, (40, 1, 8, 8), dtype=np.uint8)
    torch.manual_seed(0)
    model = nn.Sequential(nn.Flatten(), nn.Linear(64, 10)).eval()
    data = DeviceData.of(pixels, np.repeat(np.arange(10), 4), CPU)
    terms = {"classes": 10, "epsilon": 0.01, "suite": Suite(seed=0, batch_size=40, attacks=[]), "examined": 40}
    whole, split = (evaluate_images(m, data, searched=model, **terms) for m in (model, Narrow(model, 5, graph=True)))
    assert split.reliability == whole.reliability is not None


class Told(SmallNet):
    """A backbone that only a few images at a time fit into."""

    most = 5

    def forward(self, x):
        if len(x) > self.most:
            raise RuntimeError("CUDA error: out of memory\nCUDA kernel errors might be asynchronously reported")
        return super().forward(x)


def test_features_and_class_vectors_are_observed_of_a_batch_that_is_split(monkeypatch):
    """The clean pass, too, whose features come part by part."""
    pixels = np.random.default_rng(0).integers(0, 256, (23, 1, 8, 8), dtype=np.uint8)
    torch.manual_seed(0)
    model = Network(Told(1), nn.Linear(64, 10)).eval()
    attack = PGD(name="pgd", kind="pgd", steps=1, step_size="epsilon/2", start="uniform", restarts=1)
    terms = {"classes": 10, "epsilon": 0.01, "suite": Suite(seed=0, batch_size=16, attacks=[attack])}
    data = DeviceData.of(pixels, np.repeat(np.arange(10), 3)[:23], CPU)
    split = observe(model, data, progress=Silent(), **terms)
    monkeypatch.setattr(Told, "most", 23)
    whole = observe(model, data, progress=Silent(), **terms)
    for side in ("clean", "attacked"):
        assert np.array_equal(getattr(whole, side).predicted, getattr(split, side).predicted)
    assert split.feature_norms == pytest.approx(whole.feature_norms, rel=1e-5) and len(set(whole.feature_norms)) == 23
    assert split.head.kind == whole.head.kind == "linear"


def test_the_first_look_at_a_strangers_model_is_split():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Flatten(), nn.Linear(64, 10)).eval()
    terms = {"attacks": ["fgsm"], "limit_test": 60, "device": "cpu"}
    whole, split = (evaluate(m, "digits-lt", **terms) for m in (model, Narrow(model, 20)))
    assert all(np.array_equal(whole.bits[name], split.bits[name]) for name in whole.bits)


@pytest.mark.parametrize("graph", [False, True])
def test_what_is_observed_of_a_network_is_split(graph):
    pixels = np.random.default_rng(0).integers(0, 256, (40, 1, 8, 8), dtype=np.uint8)
    torch.manual_seed(0)
    model = nn.Sequential(nn.Flatten(), nn.Linear(64, 10)).eval()
    attack = PGD(name="pgd", kind="pgd", steps=3, step_size="epsilon/2", start="uniform", restarts=1)
    terms = {"classes": 10, "epsilon": 0.01, "suite": Suite(seed=0, batch_size=40, attacks=[attack])}
    data = DeviceData.of(pixels, np.repeat(np.arange(10), 4), CPU)
    whole, split = (observe(m, data, progress=Silent(), **terms) for m in (model, Narrow(model, 5, graph)))
    assert np.array_equal(whole.attacked.predicted, split.attacked.predicted)


@pytest.mark.parametrize(
    ("said", "is_memory"),
    [
        (
            "DefaultCPUAllocator: not enough memory: you tried to allocate 8 bytes.",
            True,
        ),
        ("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`", True),
        ("cuDNN error: CUDNN_STATUS_ALLOC_FAILED", True),
        ("cuDNN error: CUDNN_STATUS_INTERNAL_ERROR_DEVICE_ALLOCATION_FAILED", True),
        ("CUDA error: out of memory\nSearch for `cudaErrorMemoryAllocation' in CUDA's documentation", True),
        ("HIP out of memory. Tried to allocate 2.00 GiB", True),
        ("CUDA error: CUBLAS_STATUS_NOT_INITIALIZED when calling `cublasCreate(handle)`", False),
        ("CUDA error: an illegal memory access was encountered", False),
    ],
)
def test_what_says_that_memory_did_not_suffice(said, is_memory):
    kinds = [RuntimeError, getattr(torch, "AcceleratorError", RuntimeError)]  # the second since torch 2.8
    assert all(out_of_memory(kind(said)) == is_memory for kind in kinds)


def test_nothing_grows_over_epochs(tmp_path):
    """The number and size of the tensors that are alive after an epoch is that after the second one."""

    class Counted(Session):
        def _epoch(self, epoch, epochs):
            super()._epoch(epoch, epochs)
            gc.collect()
            # What torch.export traced in the same process has no numbers, and sizes that are symbols.
            alive = [o for o in gc.get_objects() if type(o) in (torch.Tensor, torch.nn.Parameter)]
            sizes.append((len(alive), sum(t.numel() for t in alive)))

    gc.collect()
    gc.freeze()  # what other tests of this process left is not looked through again and again
    for method, crafting in (("reat", "network"), ("trades", "folded")):
        sizes = []
        request = {"protocol": "smoke", "epochs": 5, "limit_train": 100, "policy": Policy(crafting=crafting)}
        Counted(make_plan(method, "digits-lt", **request), tmp_path / method, CPU, Silent(), None).run()
        assert len(sizes) == 5 and set(sizes[1:]) == {sizes[1]}
    gc.unfreeze()
