"""The thorough attacks where the answer is known: on linear and quadratic models, in the ball, in the box."""

from __future__ import annotations

import math

import pytest
import torch
from linear import Linear
from torch import nn

from ltrobust_bench.attacks import bpda as straight
from ltrobust_bench.attacks import nearest_t as nearest_module
from ltrobust_bench.attacks.ball import BALLS
from ltrobust_bench.attacks.bpda import bpda
from ltrobust_bench.attacks.eot import eot
from ltrobust_bench.attacks.nearest_t import nearest, nearest_t
from ltrobust_bench.attacks.nes import nes, normals
from ltrobust_bench.attacks.pma import pma, probability_margin
from ltrobust_bench.attacks.pma_transfer import pma_transfer
from ltrobust_bench.attacks.pursuit import exact, margin, mean_gradient, step_length
from ltrobust_bench.attacks.spsa import differences, signs, spsa
from ltrobust_bench.errors import UsageError
from ltrobust_bench.evaluation.demonstration import Preprocessing
from ltrobust_bench.evaluation.foreign import Attached, Normalised

EPSILON = 0.1


class Declaring(nn.Module):
    """A linear model behind rounded pixels, which have no gradient."""

    def __init__(self, classes=2, levels=1000):
        super().__init__()
        self.model, self.preprocessing = Linear(classes), Preprocessing(lambda x: torch.round(levels * x) / levels)

    def forward(self, x):
        return self.model(self.preprocessing(x))


def images(n=12, seed=1, low=0.2, high=0.8, dtype=torch.float64):
    generator = torch.Generator().manual_seed(seed)
    x = low + (high - low) * torch.rand(n, 3, 4, 4, generator=generator, dtype=dtype)
    return x, torch.randint(0, 2, (n,), generator=generator)


def drawn(seed=0):
    return torch.Generator().manual_seed(seed)


ATTACKS = {
    "pma": lambda m, x, y, **k: pma(m, x, y, **{"epsilon": EPSILON, "steps": 20} | k),
    "eot": lambda m, x, y, **k: eot(m, x, y, draws=3, noise=0.01, **{"epsilon": EPSILON, "steps": 20} | k),
    "spsa": lambda m, x, y, **k: spsa(m, x, y, draws=100, width=0.01, **{"epsilon": EPSILON, "steps": 20} | k),
    "nes": lambda m, x, y, **k: nes(m, x, y, draws=100, width=0.01, **{"epsilon": EPSILON, "steps": 20} | k),
    "bpda": lambda m, x, y, **k: bpda(m, x, y, **{"epsilon": EPSILON, "steps": 20} | k),
    "pma-transfer": lambda m, x, y, **k: pma_transfer(m, x, y, surrogate=m, **{"epsilon": EPSILON, "steps": 20} | k),
    "nearest-t": lambda m, x, y, **k: nearest_t(m, x, y, targets=3, **{"epsilon": EPSILON, "steps": 20} | k),
}


def model_for(name, classes=2):
    return Declaring(classes) if name == "bpda" else Linear(classes)


def critical(model, x, y):
    """The radius at which a linear two-class model is fooled in Linf (away from the box), per image."""
    difference = (model.weight[y] - model.weight[1 - y]).detach()
    return (difference * x.flatten(1)).sum(1) / difference.abs().sum(1)


@pytest.mark.parametrize("name", ATTACKS)
def test_on_a_linear_model_exactly_the_breakable_images_are_broken(name):
    """Along the right direction all steps together are far longer than the ball: the optimum is x - eps sign(w)."""
    x, _ = images(40)
    linear = Linear()
    y = linear(x).argmax(1)
    radius = critical(linear, x, y)
    epsilon = radius.median().item() + 1e-4
    model = model_for(name)
    found = ATTACKS[name](model, x, y, generator=drawn(), epsilon=epsilon)
    robust = model(found).argmax(1) == y
    slack = {"spsa": 0.15, "nes": 0.15, "bpda": 0.02}.get(name, 0.0)  # of estimates, and of rounded pixels
    clear = (radius / epsilon - 1).abs() > slack
    assert epsilon < 0.2 and 10 < robust.sum() < 30 and clear.sum() > 20
    assert torch.equal(robust[clear], (radius > epsilon)[clear])


def test_what_withstands_pma_on_a_linear_model_has_the_lowest_margin():
    x, _ = images(20)
    model = Linear()
    y = model(x).argmax(1)
    epsilon = critical(model, x, y).median().item()
    found = pma(model, x, y, epsilon=epsilon, steps=50, generator=drawn())
    stands = model(found).argmax(1) == y
    assert 5 < stands.sum() < 15
    corner = x - epsilon * (model.weight[y] - model.weight[1 - y]).view_as(x).sign()
    torch.testing.assert_close(found[stands], corner[stands].detach())


@pytest.mark.parametrize("norm", BALLS)
@pytest.mark.parametrize("name", ATTACKS)
def test_stays_in_ball_and_box(name, norm):
    x, y = images(20, low=0.0, high=1.0, dtype=torch.float32)
    epsilon = {"Linf": EPSILON, "L2": 0.5}[norm]
    found = ATTACKS[name](model_for(name, 4), x, y, ball=BALLS[norm], epsilon=epsilon, steps=4, generator=drawn())
    assert found.shape == x.shape and found.dtype == x.dtype and not found.requires_grad
    assert not BALLS[norm].left(found, x, epsilon).any()


@pytest.mark.parametrize("name", ATTACKS)
def test_the_same_generator_gives_the_same_images_and_leaves_torchs_alone(name):
    x, y = images(8)

    class Noisy(nn.Module):
        def __init__(self):
            super().__init__()
            self.model = model_for(name, 4)

        def forward(self, x):
            return self.model(x + 0.05 * torch.randn_like(x))

    model, before = Noisy(), torch.get_rng_state()
    first, second = (ATTACKS[name](model, x, y, steps=4, generator=drawn(3)) for _ in range(2))
    assert torch.equal(first, second) and torch.equal(before, torch.get_rng_state())


@pytest.mark.parametrize("name", ["pma", "eot", "bpda", "nearest-t"])
def test_restarts_and_passes_attack_only_standing_images(name):
    """What is fooled at the start is asked about once, however many passes and restarts there are."""
    x, y = images(10)
    model = model_for(name)
    wrong = 1 - model(x).argmax(1)
    seen = []
    model.register_forward_hook(lambda module, given, output: seen.append(len(output)))
    one = ATTACKS[name](model, x, wrong, start="none", restarts=1)
    cost, seen[:] = sum(seen), []
    many = ATTACKS[name](model, x, wrong, start="none", restarts=5)
    assert torch.equal(one, x) and torch.equal(many, x)
    assert sum(seen) == cost <= {"eot": 60}.get(name, 20)


def test_pma_asks_as_often_as_it_says():
    x, y = images(5)
    model, seen = Linear(), []
    y = model(x).argmax(1)
    model.register_forward_hook(lambda module, given, output: seen.append(len(output)))
    pma(model, x, y, epsilon=1e-6, steps=10)
    assert sum(seen) == 5 * 2 * (10 + 1)  # two passes, each with a last look


def test_the_probability_margin_and_its_gradient():
    """L = p_max - p_y (eq. 5), dL/dz_i = p_i (delta_max,i - p_max) - p_i (delta_y,i - p_y)."""
    logits = torch.tensor([[1.0, 2.0, 0.5], [0.0, -1.0, 3.0]], dtype=torch.float64, requires_grad=True)
    y = torch.tensor([1, 0])
    p = logits.softmax(1).detach()
    value = probability_margin(logits, y)
    torch.testing.assert_close(value.detach(), torch.stack([p[0, 0] - p[0, 1], p[1, 2] - p[1, 0]]))
    (slope,) = torch.autograd.grad(value.sum(), logits)
    other = torch.tensor([0, 2])
    expected = torch.zeros_like(p)
    for row in range(2):
        for i in range(3):
            expected[row, i] = p[row, i] * (float(i == other[row]) - p[row, other[row]])
            expected[row, i] -= p[row, i] * (float(i == y[row]) - p[row, y[row]])
    torch.testing.assert_close(slope, expected)


def test_pma_takes_the_steps_of_its_authors():
    """Two half waves from about 2 epsilon down to about 0 and back, as their code: with 100 steps, K' = 50."""
    lengths = [step_length(i, 100) for i in range(100)]
    assert lengths[1] == 2.0 and lengths[0] == pytest.approx(1 + math.cos(math.pi / 50))
    assert lengths[50] == pytest.approx(1 + math.cos(49 / 50 * math.pi)) and lengths[51] == 2.0
    assert lengths[99] == pytest.approx(1 + math.cos(48 / 50 * math.pi))


@pytest.mark.parametrize("directions", [signs, normals], ids=["spsa", "nes"])
def test_the_expectation_of_finite_differences_is_the_gradient(directions):
    """Of a quadratic f(x) = w.x + x.A.x / 2: the second-order terms of both queries cancel, whatever the width."""
    generator = drawn(5)
    w, a = (torch.randn(*shape, generator=generator, dtype=torch.float64) for shape in ((48,), (48, 48)))

    class Quadratic(nn.Module):
        def forward(self, x):
            flat = x.flatten(1)
            return (flat @ w + 0.5 * torch.einsum("bi,ij,bj->b", flat, a, flat))[:, None]

    x, _ = images(2, low=0.4, high=0.6)
    exactly = (w + x.flatten(1) @ (a + a.T) / 2).view_as(x)
    many = 20_000
    estimate, logits = differences(directions, many, 0.01)(Quadratic(), x, lambda z: z[:, 0], generator)
    assert logits is None
    # A coordinate's variance is below |g|^2 + g_i^2 for either law of directions, over the number of draws.
    error = exactly.flatten(1).norm(dim=1).view(-1, 1, 1, 1) * math.sqrt(2 / many)
    assert ((estimate - exactly).abs() < 5 * error).all()
    once, _ = differences(directions, 1, 0.01)(Quadratic(), x, lambda z: z[:, 0], generator)
    assert not torch.allclose(once, exactly, atol=0.5)


@pytest.mark.parametrize("where", [0.0, 0.004, 1.0])
def test_finite_differences_at_the_border_of_the_box_are_those_of_clipped_images(where):
    """Of a linear f along signs, a pixel's expectation is w_i times the share of the width that it can move."""
    generator = drawn(6)
    w = torch.randn(48, generator=generator, dtype=torch.float64)
    x, width, many, seen = torch.full((1, 3, 4, 4), where, dtype=torch.float64), 0.01, 20_000, []

    class Sloping(nn.Module):
        def forward(self, x):
            seen.append((x.min().item(), x.max().item()))
            return (x.flatten(1) @ w)[:, None]

    estimate, _ = differences(signs, many, width)(Sloping(), x, lambda z: z[:, 0], generator)
    share = (min(1.0, where + width) - max(0.0, where - width)) / (2 * width)
    assert 0.5 <= share < 1 and min(low for low, _ in seen) >= 0 and max(high for _, high in seen) <= 1
    assert ((estimate.flatten() - share * w).abs() < 5 * share * w.norm() / math.sqrt(many)).all()


def test_the_gradient_of_eot_is_the_mean():
    """Of a model that multiplies its gradient by random signs and adds to it, and of a step under normal noise."""

    class Shifty(nn.Module):
        def forward(self, x):
            value = x.flatten(1).sum(1)
            return (value + (value - value.detach()) * 3 * torch.randn(len(x), dtype=x.dtype))[:, None]

    x, _ = images(3, low=0.5, high=0.5)
    torch.manual_seed(0)
    slope, _ = mean_gradient(1500)(Shifty(), x, lambda z: z[:, 0], None)
    assert (slope - 1).abs().max() < 5 * 3 / math.sqrt(1500)

    class Sigmoid(nn.Module):
        def forward(self, x):
            return torch.sigmoid(2000 * (x - 0.52)).flatten(1)[:, :1]

    at_point, _ = exact(Sigmoid(), x, lambda z: z[:, 0])
    assert at_point.abs().max() < 1e-10  # the step is elsewhere
    slope, _ = mean_gradient(1500, 0.05)(Sigmoid(), x, lambda z: z[:, 0], drawn())
    density = math.exp(-0.5 * (0.02 / 0.05) ** 2) / (0.05 * math.sqrt(2 * math.pi))
    assert slope.flatten(1)[:, 0].mean() == pytest.approx(density, rel=0.3)
    assert slope.flatten(1)[:, 1:].abs().max() == 0


def test_bpda_is_the_gradient_behind_the_preprocessing():
    """z(g(x)) with g rounding: backward as if g were the identity, forward as it is."""
    model = Declaring(3, levels=4)
    x, y = images(6)
    with straight.straight_through(model, ["preprocessing"]):
        slope, logits = exact(model, x, lambda z: margin(z, y))
    assert torch.equal(logits, model(x).detach())
    at = (torch.round(4 * x) / 4).requires_grad_(True)
    (expected,) = torch.autograd.grad(margin(model.model(at), y).sum(), at)
    torch.testing.assert_close(slope, expected)
    assert torch.equal(exact(model, x, lambda z: margin(z, y))[0], torch.zeros_like(x))  # the hook is gone


@pytest.mark.parametrize("levels", [3, 7])
def test_bpdas_forward_is_exactly_the_models(levels):
    """x + (g(x) - x) is not g(x) in float32, and where logits tie or steps are steep that is another answer."""
    model = Declaring(3, levels=levels).float()
    x, _ = images(64, dtype=torch.float32)
    with straight.straight_through(model, ["preprocessing"]):
        leaf = x.clone().requires_grad_(True)
        through = model.preprocessing(leaf)
        (slope,) = torch.autograd.grad(through.sum(), leaf)
        assert torch.equal(model(x), model.model(torch.round(levels * x) / levels))
    assert torch.equal(through, torch.round(levels * x) / levels) and torch.equal(slope, torch.ones_like(x))


@pytest.mark.parametrize("levels", [None, 4])
def test_bpda_under_a_normalisation_is_the_gradient_through_it(levels):
    """The model takes z = (x - m) / s and rounds it before its weights W: the gradient in pixels is W / s, per channel;
    with an identity in place of the rounding it is the plain one."""
    mean, std = [0.4, 0.5, 0.6], [0.5, 0.25, 0.2]
    inner = Declaring(3, levels=levels or 1)
    if levels is None:
        inner.preprocessing = nn.Identity()
    model = Attached(Normalised(inner, mean, std, 3)).double()
    x, y = images(6)
    value = lambda z: margin(z, y)  # noqa: E731
    with straight.straight_through(model, ["preprocessing"]):
        slope, logits = exact(model, x, value)
    assert torch.equal(logits, model(x).detach())
    other = logits.scatter(1, y[:, None], -torch.inf).argmax(1)
    weight = (inner.model.weight[other] - inner.model.weight[y]).detach().view_as(x)
    torch.testing.assert_close(slope, weight / torch.tensor(std, dtype=x.dtype).view(1, 3, 1, 1))
    plain = exact(model, x, value)[0]
    torch.testing.assert_close(plain, slope if levels is None else torch.zeros_like(x))


def test_a_whole_name_is_that_submodule_alone():
    """Numbers of an nn.Sequential recur in whatever it holds: a convolution must not be taken for an identity."""
    clean, net = Preprocessing(lambda x: x), nn.Sequential(nn.Conv2d(3, 3, 1), nn.Sequential(nn.Identity()))
    for model in (
        whole := nn.Sequential(clean, net),
        nn.Sequential(whole),
        Attached(Normalised(whole, [0.5], [0.5], 3)),
    ):
        assert straight.declared(model, ["0"]) == [clean] and straight.declared(model, ["1.0"]) == [net[0]]
        assert straight.parts_of(model) == ["0", "1"]
    assert straight.parts_of(nn.Sequential(nn.Flatten())) == ["0"] and straight.parts_of(nn.Flatten()) == []
    both = nn.ModuleDict({"preprocessing": clean, "inside": nn.ModuleDict({"preprocessing": net})})
    assert straight.declared(both) == [clean, net]


def test_bpda_acts_on_submodules_called_by_keyword():
    class Keyword(Declaring):
        def forward(self, x):
            return self.model(self.preprocessing(x=x))

    x, y = images(6)
    plain, named = (bpda(model(2, 4), x, y, epsilon=0.3, steps=4, generator=drawn()) for model in (Declaring, Keyword))
    assert torch.equal(plain, named)


@pytest.mark.filterwarnings("ignore:`torch.jit.trace")
def test_bpda_says_that_it_cannot_act_on_what_is_not_called():
    """Else it would be PMA under another name."""

    class Beside(Declaring):
        def forward(self, x):
            return self.model(self.preprocessing.forward(x))

    x, y = images(2)
    traced = torch.jit.trace(Declaring().float(), x.float())
    for model in (Beside(), traced):
        with pytest.raises(UsageError, match="without calling preprocessing as a module"):
            bpda(model, x.float(), y, epsilon=0.1, steps=2)


def test_bpda_also_climbs_towards_each_class(monkeypatch):
    """Behind rounded pixels: brighter images get near one class, whose boundary they cannot reach, and only those of a
    mean of 0.57 are taken for another, of which the margin knows nothing where it starts."""

    class Drawn(nn.Module):
        def __init__(self):
            super().__init__()
            self.preprocessing = Preprocessing(lambda x: torch.round(1000 * x) / 1000)

        def forward(self, x):
            mean = self.preprocessing(x).flatten(1).mean(1)
            near, beyond = 0.9 + 0.095 * torch.tanh(20 * (0.5 - mean)), 3 - 100 * (mean - 0.57).abs()
            return torch.stack([torch.ones_like(mean), near, beyond], dim=1)

    model, x, y = Drawn(), torch.full((3, 3, 4, 4), 0.5, dtype=torch.float64), torch.zeros(3, dtype=torch.int64)
    settings = {"epsilon": 0.1, "steps": 20, "start": "none"}
    assert (model(bpda(model, x, y, targets=2, **settings)).argmax(1) == 2).all()
    monkeypatch.setattr(nearest_module, "targeted", lambda *given, **settings: [])
    assert (model(bpda(model, x, y, **settings)).argmax(1) == 0).all()


def test_bpda_finds_its_submodules_inside_a_wrapper():
    inner = nn.Sequential()
    inner.add_module("block", nn.ModuleDict({"encoder": Preprocessing(lambda x: x)}))
    for model in (inner, nn.Sequential(inner)):
        assert [len(straight.declared(model, [name])) for name in ("encoder", "block.encoder", "coder")] == [1, 1, 0]
    x, y = images(4)
    assert torch.equal(bpda(Declaring(), x, y, epsilon=0.0), x)  # by default as many steps as PMA


class Torn(nn.Module):
    """Every draw moves the logits by so much that a single forward is fooled now and then, whatever the image."""

    def forward(self, x):
        logits = torch.stack([x.flatten(1).sum(1) * 0 + 0.5, torch.zeros(len(x), dtype=x.dtype)], dim=1)
        return logits + torch.randn_like(logits)


@pytest.mark.parametrize("name", [name for name in ATTACKS if name != "bpda"])
def test_a_random_model_is_fooled_where_its_mean_logits_are(name):
    """No image changes what it says on average; an attack that believes one lucky draw calls every image broken and
    stops there, at its start. That of 100 draws, whose mean is 5 standard errors away, goes on to the last step."""
    x, _ = images(10)
    y = torch.zeros(10, dtype=torch.int64)
    model, seen = Torn(), []
    model.register_forward_hook(lambda module, given, output: seen.append(len(output)))
    ATTACKS[name](model, x, y, steps=4, generator=drawn(), votes=1)
    hasty, seen[:] = seen[-1], []
    ATTACKS[name](model, x, y, steps=4, generator=drawn(), votes=100)
    assert seen[-1] == 10 and (hasty < 10 or name in ("spsa", "nes"))


def test_bpda_needs_a_declaration_and_images_of_the_same_shape():
    x, y = images(2)
    with pytest.raises(UsageError, match="no submodule called preprocessing"):
        bpda(Linear(), x, y, epsilon=0.1, steps=2)
    model = Declaring()
    model.preprocessing = Preprocessing(lambda x: x[:, :, :2, :2])
    with pytest.raises(UsageError, match=r"turns images of shape \(2, 3, 4, 4\) into \(2, 3, 2, 2\)"):
        bpda(model, x, y, epsilon=0.1, steps=2)


@pytest.mark.parametrize("norm", BALLS)
def test_the_nearest_classes_are_those_of_the_smallest_perturbation(norm):
    """On a linear model the boundary of class t is (z_y - z_t) / |w_y - w_t|_* away, exactly."""
    model, (x, _) = Linear(6), images(20)
    y = model(x).argmax(1)
    logits, weight = model(x).detach(), model.weight.detach()
    gaps = logits.gather(1, y[:, None]) - logits
    lengths = (weight[y][:, None] - weight[None]).norm(p={"Linf": 1, "L2": 2}[norm], dim=2)
    distance = torch.where(torch.arange(6) == y[:, None], torch.inf, gaps / lengths)
    with torch.no_grad():  # whatever a caller has set
        assert torch.equal(nearest(model, x, y, BALLS[norm]), distance.argsort(1)[:, :-1])
    by_logit = torch.where(torch.arange(6) == y[:, None], torch.inf, gaps).argsort(1)[:, :-1]
    assert not torch.equal(nearest(model, x, y, BALLS[norm]), by_logit)


def test_transfer_climbs_the_second_model_and_asks_the_first():
    """Of a model without a gradient, through one that has it: as PMA on the latter, broken where the former is."""
    honest, (x, _) = Linear(), images(40)
    y = honest(x).argmax(1)

    class Blind(nn.Module):
        def forward(self, x):
            return honest(x).detach().sign()

    blind = Blind()
    settings = {"epsilon": critical(honest, x, y).median().item() + 1e-4, "steps": 20}
    alone = pma(blind, x, y, generator=drawn(), **settings)
    through = pma_transfer(blind, x, y, surrogate=honest, generator=drawn(), **settings)
    on_honest = pma(honest, x, y, generator=drawn(), **settings)
    robust = [(honest(found).argmax(1) == y).sum() for found in (alone, through, on_honest)]
    assert robust[1] == robust[2] < robust[0]
