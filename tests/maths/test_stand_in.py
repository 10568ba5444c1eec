"""Attacks on a copy with batch norm folded, or with Winograd's convolutions, are attacks on the network itself."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from ltrobust_bench.api import Network, linear
from ltrobust_bench.attacks.pgd import pgd
from ltrobust_bench.compute import winograd
from ltrobust_bench.compute.stand_in import StandIn, norms_after
from ltrobust_bench.errors import UsageError
from ltrobust_bench.models import models

DOUBLE = torch.float64


def drawn(*shape, dtype=DOUBLE, seed=0):
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def network(name="small", size=8, dtype=DOUBLE, seed=0):
    """A network whose running statistics and batch-norm weights are not those it started with."""
    torch.manual_seed(seed)
    backbone = models.get(name)((1, 8, 8))
    net = Network(backbone, linear(backbone.features, 10)).to(dtype)
    with torch.no_grad():
        for module in net.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.weight.uniform_(0.5, 1.5)
                module.bias.normal_(0, 0.1)
                module.running_mean.normal_(0, 0.1)
                module.running_var.uniform_(0.5, 1.5)
    return net.eval()


@pytest.mark.parametrize(("height", "width"), [(8, 8), (4, 4), (3, 10), (1, 1)])
def test_winograd_is_the_convolution_and_its_gradient(height, width):
    x = drawn(5, 64, height, width).requires_grad_(True)
    convolution = nn.Conv2d(64, 66, 3, padding=1).to(DOUBLE)
    assert winograd.fits(convolution)
    fast = winograd.WinogradConv(convolution)
    fast.load(convolution.weight, convolution.bias)
    wanted, got, upward = convolution(x), fast(x), drawn(5, 66, height, width, seed=1)
    assert torch.allclose(got, wanted, rtol=0, atol=1e-12)
    assert got.is_contiguous(memory_format=torch.channels_last)
    gradients = [torch.autograd.grad((out * upward).sum(), x)[0] for out in (got, wanted)]
    assert torch.allclose(*gradients, rtol=0, atol=1e-12)


def test_winograd_in_float32_is_within_its_stated_error():
    """Several times the rounding of a direct convolution, on activations as large as 1."""
    x, convolution = drawn(2, 128, 8, 8), nn.Conv2d(128, 128, 3, padding=1).to(DOUBLE)
    wanted = convolution(x)
    fast = winograd.WinogradConv(convolution.float())
    fast.load(convolution.weight, convolution.bias)
    assert (fast(x.float()) - wanted).abs().max() < 3e-5


@pytest.mark.parametrize(
    "settings", [{"stride": 2}, {"padding": 0}, {"dilation": 2}, {"groups": 2}, {"kernel_size": 1}, {"in_channels": 32}]
)
def test_winograd_is_for_plain_3x3_convolutions_with_many_channels(settings):
    usual = {"in_channels": 64, "out_channels": 64, "kernel_size": 3, "padding": 1}
    assert winograd.fits(nn.Conv2d(**usual)) and not winograd.fits(nn.Conv2d(**{**usual, **settings}))


@pytest.mark.parametrize(("name", "size", "folds"), [("small", 8, 3), ("resnet18", 8, 20), ("preact-resnet18", 8, 8)])
def test_every_batch_norm_that_follows_a_convolution_alone_is_folded(name, size, folds):
    """A pre-activation network's stem feeds its first batch norm and the shortcut: folding it would be wrong."""
    net, x = network(name, size), drawn(3, 1, size, size)
    assert len(norms_after(net, x)) == folds
    copy = StandIn(net, x, "folded")
    left = sum(isinstance(m, nn.BatchNorm2d) for m in copy.modules())
    assert left == sum(isinstance(m, nn.BatchNorm2d) for m in net.modules()) - folds
    assert torch.allclose(copy(x), net(x), rtol=1e-10, atol=1e-12)
    assert not any(p.requires_grad for p in copy.parameters()) and all(p.requires_grad for p in net.parameters())


@pytest.mark.parametrize("kind", ["folded", "winograd"])
@pytest.mark.parametrize("name", ["small", "resnet18"])
def test_attacks_on_the_copy_are_attacks_on_the_network(name, kind):
    """In float64, logits and gradients agree, and PGD-10 gives the same images; so the folded attack is the unfolded
    one, up to rounding."""
    net, x, y = network(name), drawn(4, 1, 8, 8), torch.tensor([0, 1, 2, 3])

    def seen(model):
        images = x.clone().requires_grad_(True)
        logits = model(images)
        return logits.detach(), torch.autograd.grad(F.cross_entropy(logits, y), images)[0]

    for got, expected in zip(seen(StandIn(net, x, kind)), seen(net), strict=True):
        assert (got - expected).abs().max() < 1e-12 * expected.abs().max()
    settings = {"epsilon": 0.1, "step_size": 0.025, "steps": 10, "start": "none"}
    wanted = pgd(net, x, y, **settings)
    assert torch.allclose(pgd(StandIn(net, x, kind), x, y, **settings), wanted, rtol=0, atol=1e-9)
    assert not torch.allclose(wanted, x)


@pytest.mark.parametrize(("kind", "direction"), [("folded", 1e-3), ("winograd", 1e-3), ("bf16", 0.3)])
def test_float32_and_bfloat16_gradients_are_within_their_stated_distance(kind, direction):
    net, x, y = network("resnet18", dtype=torch.float32), drawn(4, 1, 8, 8, dtype=torch.float32), torch.arange(4)

    def gradient(model):
        images = x.clone().requires_grad_(True)
        return torch.autograd.grad(F.cross_entropy(model(images), y), images)[0]

    wanted, got = gradient(net), gradient(StandIn(net, x, kind))
    assert got.dtype == torch.float32
    assert (got - wanted).norm() < direction * wanted.norm()


@pytest.mark.parametrize("kind", ["folded", "winograd"])
def test_the_copy_follows_when_it_is_told_to(kind):
    net, x = network("resnet18"), drawn(3, 1, 8, 8)
    copy = StandIn(net, x, kind)
    with torch.no_grad():
        for value in (*net.parameters(), *net.buffers()):
            if value.is_floating_point():
                value.mul_(1.1)
    assert not torch.allclose(copy(x), net(x))
    copy.refresh()
    assert torch.allclose(copy(x), net(x), rtol=1e-9)


def test_convolutions_with_a_bias_and_norms_without_weights():
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4, affine=False), nn.Flatten(), nn.Linear(144, 3)).eval()
    net[1].running_mean.normal_()
    x = drawn(2, 1, 8, 8, dtype=torch.float32)
    assert torch.allclose(StandIn(net, x, "folded")(x), net(x), atol=1e-6)


def test_a_shared_convolution_is_left_alone():
    """A module that runs twice has one weight for two places."""

    class Twice(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv, self.one, self.two = nn.Conv2d(1, 1, 3, padding=1), nn.BatchNorm2d(1), nn.BatchNorm2d(1)
            self.two.running_mean += 1

        def forward(self, x):
            return self.two(self.conv(self.one(self.conv(x)))).flatten(1)

    net, x = Twice().eval(), drawn(2, 1, 4, 4, dtype=torch.float32)
    assert norms_after(net, x) == {}
    assert torch.allclose(StandIn(net, x, "folded")(x), net(x), atol=1e-6)


def trained(body, inputs=1, width=8):
    """A network around a body, the copy made of it while its batch norm was fresh, and both after some training."""
    torch.manual_seed(0)
    net = nn.Sequential(body, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(width, 3)).eval()
    copy = StandIn(net, drawn(2, inputs, 8, 8, dtype=torch.float32), "winograd")
    optimizer = torch.optim.SGD(net.parameters(), lr=0.1, momentum=0.9)
    for turn in range(5):
        x = drawn(16, inputs, 8, 8, dtype=torch.float32, seed=turn)
        loss = F.cross_entropy(net.train()(x), torch.arange(16) % 3)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    net.eval()
    copy.refresh()
    return net, copy


class Standardised(nn.Conv2d):
    """A convolution of somebody's own, which changes its weights before it uses them."""

    def forward(self, x):
        weight = self.weight - self.weight.mean(dim=(1, 2, 3), keepdim=True)
        return F.conv2d(x, weight / weight.std(), padding=1)


class TwoNames(nn.Module):
    """Its modules are known by two names, and used by the second."""

    def __init__(self, inputs, width):
        super().__init__()
        self.norm, self.conv = nn.BatchNorm2d(width), nn.Conv2d(inputs, width, 3, padding=1)
        self.both = nn.Sequential(self.conv, self.norm)

    def forward(self, x):
        return self.both(x).relu()


def tied():
    body = nn.Sequential(*(m for _ in range(2) for m in (nn.Conv2d(1, 1, 3, padding=1), nn.BatchNorm2d(1), nn.ReLU())))
    body[3].weight, body[3].bias = body[0].weight, body[0].bias
    return body


def parametrised():
    return nn.utils.parametrizations.weight_norm(nn.Conv2d(1, 8, 3, padding=1))


def hooked():
    norm = nn.BatchNorm2d(8)
    norm.register_forward_hook(lambda module, given, output: 2 * output)
    return norm


@pytest.mark.parametrize(
    ("make", "folds", "inputs", "width"),
    [
        (lambda: nn.Sequential(nn.Conv2d(1, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU()), 1, 1, 8),
        (lambda: nn.Sequential(Standardised(1, 8, 3), nn.BatchNorm2d(8), nn.ReLU()), 0, 1, 8),
        (lambda: nn.Sequential(Standardised(64, 64, 3, padding=1), nn.ReLU()), 0, 64, 64),
        (lambda: nn.Sequential(parametrised(), nn.BatchNorm2d(8), nn.ReLU()), 0, 1, 8),
        (lambda: nn.Sequential(nn.Conv2d(1, 8, 3), hooked(), nn.ReLU()), 0, 1, 8),
        (tied, 2, 1, 1),
        (lambda: TwoNames(1, 8), 1, 1, 8),
        (lambda: TwoNames(64, 64), 1, 64, 64),
    ],
    ids=["plain", "own", "own-3x3", "parametrised", "hooked", "tied", "two-names", "two-names-winograd"],
)
def test_the_copy_of_a_fresh_network_is_right_when_it_is_trained(make, folds, inputs, width):
    """Fresh batch norm does nothing: a convolution that is wrongly folded into it does not show before training."""
    net, copy = trained(make(), inputs, width)
    x = drawn(4, inputs, 8, 8, dtype=torch.float32, seed=9)
    assert len(copy._folds) == folds and (copy(x) - net(x)).abs().max() < 1e-5 * net(x).abs().max()


def test_a_copy_that_goes_wrong_as_the_network_is_trained_is_refused():
    class Remembers(nn.BatchNorm2d):
        """Keeps something where no copy looks for it."""

        mean = 0.0

        def forward(self, x):
            if self.training:
                self.mean = x.detach().mean()
            return super().forward(x) - self.mean

    with pytest.raises(UsageError, match="gives other logits.*--crafting network"):
        trained(nn.Sequential(nn.Conv2d(1, 8, 3), Remembers(8)))


def test_a_network_that_cannot_be_copied_is_one_line():
    class Fixed(nn.Module):
        """Its constant is no buffer, which bfloat16 does not reach."""

        def __init__(self):
            super().__init__()
            self.mean, self.linear = torch.full((1, 16), 0.5), nn.Linear(16, 3)

        def forward(self, x):
            return self.linear(x.flatten(1) - self.mean)

    x = drawn(2, 1, 4, 4, dtype=torch.float32)
    assert StandIn(Fixed(), x, "folded")(x).shape == (2, 3)
    with pytest.raises(UsageError, match="no bf16 copy of this network .*dtype.*--attack-search network"):
        StandIn(Fixed(), x, "bf16")


def test_logits_that_are_not_finite_are_not_the_copys_fault():
    """Who uses them says so: the loss became nan."""
    net, x = nn.Sequential(nn.Flatten(), nn.Linear(16, 3)), drawn(2, 1, 4, 4, dtype=torch.float32)
    copy = StandIn(net, x, "folded")
    net[1].weight.data.fill_(torch.nan)
    copy.refresh()
    assert copy(x).isnan().all()


def test_a_copy_that_is_no_copy_is_refused():
    class Hidden(nn.Module):
        """Keeps a weight where no copy looks."""

        def __init__(self):
            super().__init__()
            self.linear = nn.Linear(16, 3)

        def __deepcopy__(self, memo):
            return Hidden()

        def forward(self, x):
            return self.linear(x.flatten(1)) if self.linear.weight.requires_grad else 2 * self.linear(x.flatten(1))

    with pytest.raises(UsageError, match="gives other logits"):
        StandIn(Hidden(), drawn(2, 1, 4, 4, dtype=torch.float32), "folded")
