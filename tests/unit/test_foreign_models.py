"""Other people's models as they come: in train mode, normalised, quantised, exported, in half precision, in a caller's
settings. Each either gets an honest verdict, or one line that says what it is."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from torch import nn

import ltrobust_bench as lt
from ltrobust_bench.errors import CheckFailed, LTBenchError
from ltrobust_bench.evaluation.foreign import check_takes_pixels
from ltrobust_bench.plan.task import make_task

FEW = {"protocol": "smoke", "attacks": ["fgsm"], "limit_test": 200, "device": "cpu"}


def digits(part):
    task = make_task("digits-lt", protocol="smoke")
    index, images, labels = (
        (task.split.train, task.source.train_images, task.source.train_labels)
        if part == "train"
        else (task.split.test, task.source.test_images, task.source.test_labels)
    )
    x = torch.from_numpy(np.ascontiguousarray(images[index])).float() / 255
    return x, torch.from_numpy(np.ascontiguousarray(labels[index]))


def network(track=True):
    return nn.Sequential(
        nn.Conv2d(1, 16, 3, padding=1), nn.BatchNorm2d(16, track_running_stats=track), nn.ReLU(),
        nn.Conv2d(16, 16, 3, 2, padding=1), nn.BatchNorm2d(16, track_running_stats=track), nn.ReLU(),
        nn.Flatten(), nn.Linear(16 * 16, 10),
    )  # fmt: skip


def fitted(change=lambda x: x, track=True, steps=60):
    """A network trained on digits whose pixels went through ``change``."""
    torch.manual_seed(0)
    model, (x, y) = network(track), digits("train")
    optimiser = torch.optim.Adam(model.parameters(), lr=3e-3)
    for _ in range(steps):
        index = torch.randint(len(x), (64,))
        loss = nn.functional.cross_entropy(model(change(x[index])), y[index])
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    return model.eval()


@pytest.fixture(scope="module")
def plain():
    return fitted()


def names(result):
    return {flag.name for flag in result.flags}


def evaluated(model, **more):
    """The result, without the warnings in which a caller who named no one is told what was noticed."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return lt.evaluate(model, "digits-lt", **{**FEW, **more})


def test_an_honest_network_raises_no_flag_in_a_single_attack(plain):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        result = lt.evaluate(plain, "digits-lt", **FEW)
    assert names(result) == set() and result.metrics("clean").overall > 0.7


# Dependence on the batch, and on what came before


def test_a_function_around_a_network_in_train_mode_is_noticed_in_a_single_attack(plain):
    network = fitted().train()
    with pytest.warns(UserWarning, match=r"depend on the other images.*\.eval\(\)"):
        result = lt.evaluate(lambda x: network(x), "digits-lt", **FEW)
    assert "batch" in names(result)


def test_batch_norm_without_running_statistics_is_noticed():
    assert "batch" in names(evaluated(fitted(track=False)))


def test_logits_that_move_a_little_with_the_batch_are_noticed_though_no_label_changes(plain):
    assert "batch" in names(evaluated(lambda x: plain(x) + x.mean()))


def test_a_function_that_changes_with_its_calls_is_noticed(plain):
    calls = []

    def tiring(x):
        calls.append(1)
        return plain(x) * (1 + 0.05 * len(calls))

    assert "random" in names(evaluated(tiring))


def test_a_function_that_changes_once_it_is_attacked_is_noticed(plain):
    attacked = []

    def later(x):
        attacked.extend([1] * x.requires_grad)
        return plain(x) * (2.0 if attacked else 1.0)

    assert "state" in names(evaluated(later))


# Normalised input

GREY = {"MNIST": (0.1307, 0.3081), "a half": (0.5, 0.5), "FashionMNIST": (0.286, 0.353)}


@pytest.mark.parametrize("name", GREY)
def test_grey_constants_are_found_out(name):
    """Refused, or said with the figure where the gain is small."""
    mean, std = GREY[name]
    try:
        assert "normalised input" in names(evaluated(fitted(lambda x: (x - mean) / std)))
    except CheckFailed as error:
        assert "needs normalised input" in str(error)


class Bright(nn.Module):
    """Class 1 if an image is brighter than 0.1."""

    def forward(self, x):
        brightness = x.mean(dim=(1, 2, 3)) - 0.1
        return torch.stack([-brightness, brightness], dim=1)


class Wanting(nn.Module):
    """Class 1 if an image is brighter than the mean, told from normalised images."""

    def __init__(self, mean, std):
        super().__init__()
        self.mean, self.std = mean, std

    def forward(self, x):
        brightness = (x * self.std + self.mean).mean(dim=(1, 2, 3)) - self.mean
        return torch.stack([-brightness, brightness], dim=1)


def test_the_images_own_mean_and_std_are_found_out():
    y = torch.arange(100) % 2
    x = 0.1 + (0.04 * y - 0.02).view(-1, 1, 1, 1) + 0.002 * torch.randn(100, 1, 4, 4)
    with pytest.raises(CheckFailed, match="needs normalised input.*own mean and std"):
        check_takes_pixels(Wanting(float(x.mean()), float(x.std())), x, y, 2)
    assert (
        check_takes_pixels(lambda x: torch.stack([0.1 - x.mean((1, 2, 3)), x.mean((1, 2, 3)) - 0.1], 1), x, y, 2)
        is None
    )


def test_a_small_gain_is_said_with_its_figure(plain):
    class Slightly(nn.Module):
        """Cannot tell one class unless its images are normalised as MNIST's are."""

        def forward(self, x):
            normalised = x.flatten(1).amin(1).view(-1, 1, 1, 1) < -0.2
            z = plain(torch.where(normalised, x * 0.3081 + 0.1307, x))
            lost = (z.argmax(1, keepdim=True) == 3) & ~normalised.view(-1, 1)
            return torch.where(lost, z.roll(1, 1), z)

    with pytest.warns(UserWarning, match=r"normalised input: \d+\.\d% of .* \d+\.\d% with"):
        result = lt.evaluate(Slightly(), "digits-lt", **FEW)
    assert "normalised input" in names(result)


# What goes wrong inside a model is blamed on it, in one line


class InPlace(nn.Module):
    def __init__(self, inner):
        super().__init__()
        self.inner = inner

    def forward(self, x):
        x.sub_(0.0).div_(1.0)
        return self.inner(x)


class Asserting(nn.Module):
    def forward(self, x):
        assert x.shape[1] == 3, "three channels are needed"
        return x


class Looking(nn.Module):
    def forward(self, x):
        return {"a": x}["logits"]


class Late(nn.Module):
    """Fails under a gradient only."""

    def __init__(self, inner):
        super().__init__()
        self.inner = inner

    def forward(self, x):
        if x.requires_grad:
            raise KeyError("cache")
        return self.inner(x)


class Overwriting(nn.Module):
    """Changes what its backward needs."""

    def __init__(self, inner):
        super().__init__()
        self.inner = inner

    def forward(self, x):
        z = self.inner(x).sigmoid()
        z.mul_(2)
        return z


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda m: Asserting(), r"AssertionError.*three channels.*test_foreign_models\.py.*assert x\.shape"),
        (lambda m: Looking(), r"KeyError.*logits.*return \{"),
        (Late, r"KeyError.*cache.*raise KeyError"),
        (Overwriting, r"in-?place"),
        (InPlace, r"writes into the images"),
        (lambda m: lambda x: m(x).numpy(), r"returned ndarray"),
        (lambda m: lambda x: m(x).detach(), r"no gradient"),
        (lambda m: m.double(), r"[Ff]loat"),
    ],
)
def test_a_models_own_error_is_one_line_that_blames_it(make, says):
    with pytest.raises(CheckFailed, match=says) as seen:
        evaluated(make(fitted(steps=2)))
    assert "model" in str(seen.value) and "\n" not in str(seen.value)


def test_an_exported_program_is_attacked_although_its_eval_is_refused(plain):
    x = torch.rand(20, 1, 8, 8)
    program = torch.export.export(plain, (x,), dynamic_shapes=({0: torch.export.Dim("batch", min=2, max=4096)},))
    with pytest.raises(NotImplementedError):
        program.module().eval()
    assert evaluated(program.module()).metrics("fgsm").overall == evaluated(plain).metrics("fgsm").overall


class Extra(nn.Module):
    def __init__(self, inner):
        super().__init__()
        self.inner = inner

    def get_extra_state(self):
        return {"version": 3}

    def set_extra_state(self, state):
        self.state = state

    def forward(self, x):
        return self.inner(x)


def test_extra_state_is_no_obstacle(plain, tmp_path):
    model = Extra(plain)
    result = evaluated(model, attacks=None, limit_test=50, state=tmp_path / "e.npz")
    assert result.attacks == ["fgsm", "pgd-5"] and not {"state", "batch"} & names(result)


def test_a_quantised_network_says_in_one_line_that_it_has_no_gradient(plain):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        quantised = torch.ao.quantization.quantize_dynamic(nn.Sequential(nn.Flatten(), nn.Linear(64, 10)), {nn.Linear})
    with pytest.raises(LTBenchError, match="model") as seen:
        evaluated(quantised)
    assert "\n" not in str(seen.value)


# A caller's settings


def bits(result):
    return {name: value.tolist() for name, value in result.bits.items()}


def test_a_callers_settings_change_no_verdict(plain):
    expected = bits(evaluated(plain, attacks=["pgd-5"]))
    for setting in (
        lambda: torch.autocast("cpu", dtype=torch.bfloat16),
        torch.inference_mode,
        torch.no_grad,
        lambda: torch.device("meta"),
    ):
        with setting():
            assert bits(evaluated(plain, attacks=["pgd-5"])) == expected
    torch.set_default_dtype(torch.float64)
    try:
        assert bits(evaluated(plain, attacks=["pgd-5"])) == expected
        assert torch.get_default_dtype() == torch.float64
    finally:
        torch.set_default_dtype(torch.float32)


def test_training_in_a_callers_settings_is_the_same_training(tmp_path):
    def weights(folder):
        terms = {"protocol": "smoke", "epochs": 1, "limit_train": 200, "device": "cpu"}
        return load_file(lt.train("at", "digits-lt", runs_dir=tmp_path / folder, **terms).model_path)

    alone = weights("alone")
    with torch.autocast("cpu", dtype=torch.bfloat16), torch.no_grad():
        within = weights("within")
    assert all(torch.equal(value, within[name]) for name, value in alone.items())


def test_half_precision_inside_a_forward_is_said(plain):
    def autocasting(x):
        with torch.autocast("cpu", dtype=torch.bfloat16):
            return plain(x).float()

    for model in (autocasting, lambda x: plain(x).bfloat16()):
        with pytest.warns(UserWarning, match="bfloat16"):
            result = lt.evaluate(model, "digits-lt", **FEW)
        assert "half precision" in names(result)
