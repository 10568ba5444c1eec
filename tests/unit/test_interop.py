"""Other people's models and files: their networks under our names, strict and code-free loading, RobustBench."""

from __future__ import annotations

import argparse
import importlib.util
import re
import sys
from collections import OrderedDict
from pathlib import Path

import numpy as np
import pytest
import torch
from record_factory import synthetic_record
from torch import nn

from ltrobust_bench.cards import methods
from ltrobust_bench.errors import CheckFailed, CheckpointError, RecordError, UnknownNameError, UsageError
from ltrobust_bench.evaluation.foreign import NORMALISATIONS, check_takes_pixels, checked_logits
from ltrobust_bench.interop.factory import from_factory
from ltrobust_bench.interop.model_info import model_info, obstacles
from ltrobust_bench.interop.official import from_official
from ltrobust_bench.interop.zoo import import_robustbench, whole_download, zoo_model
from ltrobust_bench.models.weights import load_fitting, load_strictly, read_weights

COUNTS = [500, 300, 200, 120, 80, 50, 30, 20, 15, 10]


def convolution(inputs, outputs, size=3, stride=1):
    return nn.Conv2d(inputs, outputs, size, stride, size // 2, bias=False)


class SequentialBlock(nn.Module):
    """A residual block as REAT's ResNet-18 has it."""

    def __init__(self, inputs, outputs, stride):
        super().__init__()
        self.residual_function = nn.Sequential(
            convolution(inputs, outputs, 3, stride), nn.BatchNorm2d(outputs), nn.ReLU(),
            convolution(outputs, outputs), nn.BatchNorm2d(outputs),
        )  # fmt: skip
        self.shortcut = nn.Sequential()
        if stride != 1:
            self.shortcut = nn.Sequential(convolution(inputs, outputs, 1, stride), nn.BatchNorm2d(outputs))

    def forward(self, x):
        return (self.residual_function(x) + self.shortcut(x)).relu()


class NamedBlock(nn.Module):
    """A residual block as AT-BSL's ResNet-18 has it."""

    def __init__(self, inputs, outputs, stride):
        super().__init__()
        self.conv1, self.bn1 = convolution(inputs, outputs, 3, stride), nn.BatchNorm2d(outputs)
        self.conv2, self.bn2 = convolution(outputs, outputs), nn.BatchNorm2d(outputs)
        self.shortcut = nn.Sequential()
        if stride != 1:
            self.shortcut = nn.Sequential(convolution(inputs, outputs, 1, stride), nn.BatchNorm2d(outputs))

    def forward(self, x):
        return (self.bn2(self.conv2(self.bn1(self.conv1(x)).relu())) + self.shortcut(x)).relu()


class ResNet(nn.Module):
    def __init__(self, block):
        super().__init__()
        self.block = block
        if block is SequentialBlock:
            self.conv1 = nn.Sequential(convolution(3, 64), nn.BatchNorm2d(64), nn.ReLU())
            self.fc = nn.Linear(512, 10)
        else:
            self.conv1, self.bn1, self.linear = convolution(3, 64), nn.BatchNorm2d(64), nn.Linear(512, 10)
        inputs = 64
        for i, (width, stride) in enumerate(((64, 1), (128, 2), (256, 2), (512, 2)), 1):
            setattr(self, f"layer{i}", nn.Sequential(block(inputs, width, stride), block(width, width, 1)))
            inputs = width

    def forward(self, x):
        x = self.conv1(x) if self.block is SequentialBlock else self.bn1(self.conv1(x)).relu()
        for i in range(1, 5):
            x = getattr(self, f"layer{i}")(x)
        return (self.fc if self.block is SequentialBlock else self.linear)(x.mean(dim=(2, 3)))


class WideBlock(nn.Module):
    def __init__(self, inputs, outputs, stride):
        super().__init__()
        self.bn1, self.conv1 = nn.BatchNorm2d(inputs), convolution(inputs, outputs, 3, stride)
        self.bn2, self.conv2 = nn.BatchNorm2d(outputs), convolution(outputs, outputs)
        self.convShortcut = convolution(inputs, outputs, 1, stride) if inputs != outputs else None

    def forward(self, x):
        active = self.bn1(x).relu()
        shortcut = x if self.convShortcut is None else self.convShortcut(active)
        return shortcut + self.conv2(self.bn2(self.conv1(active)).relu())


class Group(nn.Module):
    def __init__(self, blocks):
        super().__init__()
        self.layer = nn.Sequential(*blocks)

    def forward(self, x):
        return self.layer(x)


class WideResNet(nn.Module):
    """As TRADES, RoBal, REAT and AT-BSL have it; ``linear``: with its classifier ``fc``."""

    def __init__(self, depth, linear):
        super().__init__()
        blocks, inputs = (depth - 4) // 6, 16
        self.conv1 = convolution(3, 16)
        for i, (width, stride) in enumerate(((160, 1), (320, 2), (640, 2)), 1):
            group = [WideBlock(inputs if j == 0 else width, width, stride if j == 0 else 1) for j in range(blocks)]
            setattr(self, f"block{i}", Group(group))
            inputs = width
        self.bn1 = nn.BatchNorm2d(640)
        self.fc = nn.Linear(640, 10) if linear else nn.Identity()

    def forward(self, x):
        x = self.block3(self.block2(self.block1(self.conv1(x))))
        return self.fc(nn.functional.avg_pool2d(self.bn1(x).relu(), 8).flatten(1))


@pytest.fixture(scope="module")
def images():
    return torch.rand(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))


def lived_in(network):
    """With running statistics that matter, in eval mode."""
    generator = torch.Generator().manual_seed(1)
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean.normal_(0, 0.1, generator=generator)
            module.running_var.uniform_(0.5, 2, generator=generator)
            module.weight.data.uniform_(0.5, 1, generator=generator)
    return network.eval()


def close(model, expected, images):
    with torch.no_grad():
        torch.testing.assert_close(model(images), expected, rtol=1e-5, atol=1e-5)


def test_reat_resnet(tmp_path, images):
    network = lived_in(ResNet(SequentialBlock))
    torch.save({"state_dict": network.state_dict(), "epoch": 79}, tmp_path / "M2.pkllast.pkl")
    with torch.no_grad():
        expected = network(images)
    close(from_official(tmp_path / "M2.pkllast.pkl", "reat", {}, COUNTS, "cifar10-lt"), expected, images)


def test_at_bsl_resnet_old_files_without_counters(tmp_path, images):
    network = lived_in(ResNet(NamedBlock))
    weights = {f"module.{n}": v for n, v in network.state_dict().items() if not n.endswith("num_batches_tracked")}
    torch.save(weights, tmp_path / "epoch90.pt")
    with torch.no_grad():
        expected = network(images)
    close(from_official(tmp_path / "epoch90.pt", "at-bsl", {}, COUNTS, "cifar10-lt"), expected, images)


def test_wide_resnets_and_robals_heads(tmp_path, images):
    """RoBal-N: scale * cos - tau_p ln pi, with gamma_w beside the norms, as its configuration for testing says."""
    network = lived_in(WideResNet(34, linear=False))
    features = {f"backbone.{n}": v for n, v in network.state_dict().items()}
    weight = torch.randn(10, 640, generator=torch.Generator().manual_seed(2))
    head = {"classifier.weight": weight, "classifier.bias": torch.zeros(10)}
    head |= {"classifier.moving_ed": torch.randn(1, 640)}
    path = tmp_path / "epoch80.pt"
    torch.save(OrderedDict((f"model.module.{n}", v) for n, v in (features | head).items()), path)
    with torch.no_grad():
        h = network(images)
    cosine = nn.functional.normalize(h) @ (weight / (weight.norm(dim=1, keepdim=True) + 1 / 32)).T
    prior = torch.tensor(COUNTS) / sum(COUNTS)
    expected = 10 * cosine - 0.1 * prior.log()
    close(from_official(path, "robal", {"variant": "N"}, COUNTS, "cifar10-lt"), expected, images)

    torch.save(features | head | {"classifier.bias": torch.ones(10)}, path)
    with pytest.raises(CheckpointError, match=r"left over: head\.bias"):
        from_official(path, "robal", {}, COUNTS, "cifar10-lt")

    bias, scales = torch.randn(10), torch.rand(10)
    linear = {"classifier.fc.weight": weight, "classifier.fc.bias": bias}
    torch.save(features | linear, path)
    close(from_official(path, "at", {}, COUNTS, "cifar10-lt"), h @ weight.T + bias, images)
    torch.save(features | linear | {"classifier.cla_scale": scales}, path)
    close(from_official(path, "lws", {"bias": False}, COUNTS, "cifar10-lt"), scales * (h @ weight.T), images)
    with pytest.raises(CheckpointError, match=r"missing: head\.weight"):
        torch.save(features, path)
        from_official(path, "at", {}, COUNTS, "cifar10-lt")


def test_wrn_28_with_the_copy_that_trades_registers(tmp_path, images):
    network = lived_in(WideResNet(28, linear=True))
    weights = dict(network.state_dict())
    weights |= {n.replace("block1", "sub_block1"): v for n, v in weights.items() if n.startswith("block1")}
    torch.save({"state_dict": weights}, tmp_path / "last.pkl")
    with torch.no_grad():
        expected = network(images)
    close(from_official(tmp_path / "last.pkl", "reat", {}, COUNTS, "cifar10-lt"), expected, images)


def test_other_networks_are_refused(tmp_path):
    torch.save({"features.0.weight": torch.ones(2, 2)}, tmp_path / "vgg.pt")
    with pytest.raises(CheckpointError, match="--torch MODULE:FACTORY"):
        from_official(tmp_path / "vgg.pt", "at", {}, COUNTS, "cifar10-lt")


class Evil:
    def __reduce__(self):
        return (exec, ("import pathlib; pathlib.Path('pwned').touch()",))


@pytest.mark.parametrize("new_format", [True, False])
def test_pickled_code_is_refused_and_never_run(tmp_path, monkeypatch, new_format):
    monkeypatch.chdir(tmp_path)
    for content in (Evil(), {"state_dict": {}, "args": Evil()}, nn.Linear(2, 2)):
        torch.save(content, "net.pt", _use_new_zipfile_serialization=new_format)
        with pytest.raises(CheckpointError, match="pickled code"):
            read_weights(tmp_path / "net.pt")
    assert not (tmp_path / "pwned").exists()


def test_files_that_are_not_whole(tmp_path):
    path = tmp_path / "net.pt"
    torch.save({"weight": torch.ones(1000)}, path)
    whole = path.read_bytes()
    for content in (b"", whole[:100], whole[:-1], b"<html>quota exceeded</html>", bytes(1000)):
        path.write_bytes(content)
        with pytest.raises(CheckpointError, match="damaged, or an interrupted download"):
            read_weights(path)
    with pytest.raises(CheckpointError, match="no weights at"):
        read_weights(tmp_path / "absent.pt")
    torch.save([1, 2], path)
    with pytest.raises(CheckpointError, match="holds no weights"):
        read_weights(path)


def test_loading_is_strict():
    model = nn.Linear(3, 2)
    with pytest.raises(
        CheckpointError, match=r"missing: bias; left over: extra; of another shape: weight \(2, 2\) for"
    ):
        load_strictly(model, {"weight": torch.ones(2, 2), "extra": torch.ones(1)}, "net.pt")
    load_strictly(model, {"weight": torch.ones(2, 3), "bias": torch.zeros(2)}, "net.pt")
    assert model.weight.eq(1).all()


def test_factories(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    (tmp_path / "my_nets.py").write_text(
        "from torch import nn\n"
        "def net(): return nn.Linear(3, 2)\n"
        "def number(): return 3\n"
        "def broken(): raise ValueError('no\\nluck')\n"
    )
    torch.save({"module.weight": torch.ones(2, 3), "module.bias": torch.zeros(2)}, tmp_path / "net.pt")
    assert from_factory("my_nets:net", tmp_path / "net.pt").weight.eq(1).all()
    for target, message in (
        ("my_nets", "is not MODULE:FACTORY"),
        ("my_nets:absent", "AttributeError"),
        ("no_such_module_at_all:net", "ModuleNotFoundError"),
        ("my_nets:number", "returned int, not a torch.nn.Module"),
        ("my_nets:broken", "ValueError: no luck"),
    ):
        with pytest.raises(UsageError, match=message):
            from_factory(target, None)


class Colour(nn.Module):
    """Class 1 if an image is brighter than a threshold, as seen after its own idea of pixels."""

    def __init__(self, mean=(0.0, 0.0, 0.0), std=(1.0, 1.0, 1.0)):
        super().__init__()
        self.mean, self.std = (torch.tensor(v).view(1, -1, 1, 1) for v in (mean, std))

    def forward(self, x):
        # Right for inputs (pixel - mean) / std, with the threshold at 0.5.
        brightness = (x * self.std + self.mean).mean(dim=(1, 2, 3)) - 0.5
        return torch.stack([-brightness, brightness], dim=1)


def test_normalised_input_is_found_out():
    generator = torch.Generator().manual_seed(0)
    y = torch.arange(100) % 2
    x = 0.5 + (0.1 * y - 0.05).view(-1, 1, 1, 1) + 0.02 * torch.randn(100, 3, 4, 4, generator=generator)
    check_takes_pixels(Colour(), x, y, 2)
    for name, (mean, std) in NORMALISATIONS.items():
        many = [v * 3 if len(v) == 1 else v for v in (mean, std)]
        with pytest.raises(CheckFailed, match="needs normalised input: 50.0% of 100 .*, 100.0% with") as seen:
            check_takes_pixels(Colour(*many), x, y, 2)
        if "255" in name:
            assert name in str(seen.value)


def test_what_a_model_returns_is_said_in_one_line():
    x = torch.rand(4, 3, 8, 8)
    for model, message in (
        (lambda x: x.mean(dim=(2, 3)), r"returned \(4, 3\) for 4 images; logits of shape \(4, 10\)"),
        (lambda x: (x, x), "returned tuple"),
        (lambda x: torch.full((4, 10), float("nan")), "NaN or infinite"),
        (lambda x: torch.zeros(4, 10, dtype=torch.int64), "torch.int64"),
        (nn.Conv2d(1, 10, 3), r"failed on images of shape \(4, 3, 8, 8\): "),
    ):
        with pytest.raises(CheckFailed, match=message) as seen:
            checked_logits(model, x, 10)
        assert "\n" not in str(seen.value)


def test_a_download_is_at_its_place_only_if_it_is_whole(tmp_path):
    place = tmp_path / "Net.pt"

    def interrupted(id, output):
        Path(output).write_bytes(b"PK\x03\x04 half")
        raise ConnectionError("connection reset\nby peer")

    def truncated(id, output):
        Path(output).write_bytes(b"PK\x03\x04 half")
        return output

    def refused(id, output):
        return None

    def fine(id, output):
        torch.save({"weight": torch.ones(2)}, output)
        return output

    for download in (interrupted, truncated, refused):
        with pytest.raises(CheckpointError, match="Net"):
            whole_download(download)("id", place)
        assert list(tmp_path.iterdir()) == []
    whole_download(fine)("id", str(place))
    assert read_weights(place)["weight"].eq(1).all() and list(tmp_path.iterdir()) == [place]


needs_robustbench = pytest.mark.skipif(
    importlib.util.find_spec("robustbench") is None, reason="RobustBench is tested where the extra is installed"
)


@needs_robustbench
def test_the_zoo_survives_its_imports_and_loads_what_lies_there(tmp_path, images):
    library = import_robustbench()
    assert "autoattack" not in sys.modules or importlib.util.find_spec("autoattack") is not None
    name = "Rice2020Overfitting"
    zoo = library.utils.all_models[library.BenchmarkDataset("cifar10")][library.ThreatModel.Linf]
    network = zoo[name]["model"]().eval()
    place = tmp_path / "cifar10" / "Linf" / f"{name}.pt"
    place.parent.mkdir(parents=True)
    torch.save(network.state_dict(), place)
    with torch.no_grad():
        close(zoo_model(name, "cifar10-lt", tmp_path), network(images), images)
    with pytest.raises(UnknownNameError, match="did you mean 'Rice2020Overfitting'"):
        zoo_model("Rice2020Overfiting", "cifar10-lt", tmp_path)
    with pytest.raises(UsageError, match="no models for digits-lt"):
        zoo_model(name, "digits-lt", tmp_path)
    place.write_bytes(place.read_bytes()[:-1000])
    with pytest.raises(CheckpointError, match="interrupted download"):
        zoo_model(name, "cifar10-lt", tmp_path)


def test_model_info_is_robustbenchs():
    record = synthetic_record(method="reat", dataset="cifar10-lt", model="resnet18", epsilon=8 / 255)
    info = model_info(record)
    assert info["name"] == methods.get("reat").card.paper.title and info["link"].endswith("2307.10205")
    assert info["eps"] == "8/255" and info["architecture"] == "ResNet-18" and info["dataset"] == "cifar10"
    assert info["clean_acc"] == f"{100 * record.bits('clean').mean():.2f}"
    assert info["autoattack_acc"] == f"{100 * record.bits('autoattack').mean():.2f}"
    assert record.id in info["footnote"] and info["additional_data"] is False
    assert obstacles(record) == ["RobustBench evaluates on 10,000 test images, not on 200"]
    assert obstacles(synthetic_record(method="reat", dataset="cifar10-lt", epsilon=8 / 255, bits=None,
                                      tests_per_class=1000)) == []  # fmt: skip
    assert len(obstacles(synthetic_record())) == 2
    with pytest.raises(RecordError, match="no card"):
        model_info(synthetic_record())


@needs_robustbench
def test_model_info_has_robustbenchs_fields():
    import_robustbench().utils.ModelInfo(**model_info(synthetic_record(method="reat", dataset="cifar10-lt")))


# Weights as training scripts save them


def small():
    return nn.Sequential(OrderedDict(conv=nn.Conv2d(1, 2, 3), bn=nn.BatchNorm2d(2), fc=nn.Linear(2, 3)))


def weights_of(seed):
    torch.manual_seed(seed)
    return {n: torch.rand_like(v) if v.is_floating_point() else v for n, v in small().state_dict().items()}


def under(front, weights):
    return {front + n: v for n, v in weights.items()}


RAW, MEAN = weights_of(1), weights_of(2)
LIGHTNING = {
    "epoch": 3,
    "pytorch-lightning_version": "2.0",
    "state_dict": under("model.", RAW) | {"criterion.weight": torch.ones(3)},
    "hyper_parameters": {"lr": 0.1},
}
SAVED = {
    "as it is": (RAW, None),
    "DataParallel": (under("module.", RAW), "`module.` left out"),
    "torch.compile": (under("_orig_mod.", RAW), "`_orig_mod.` left out"),
    "both": ({"model": under("module._orig_mod.", RAW)}, "`model` of .*`module._orig_mod.` left out"),
    "Lightning": (LIGHTNING, r"`state_dict\.model` of .*`model.` left out.*not used: criterion.weight"),
    "net": ({"net": under("net.", RAW), "acc": 91.5}, "`net.net` of .*`net.` left out"),
    "AveragedModel": (under("module.", RAW) | {"n_averaged": torch.tensor(7)}, "`module.` left out"),
    "nested": ({"state": {"epoch": 1, "model": {"weights": RAW}}}, r"`state\.model\.weights` of"),
    "a part in parallel": ({n.replace("bn.", "bn.module."): v for n, v in RAW.items()}, "wrappers inside names"),
    "beside its mean": (
        {"state_dict_ema": MEAN, "state_dict": RAW},
        "`state_dict` of .*others fit, too: state_dict_ema",
    ),
    "beside its mean in one": (under("ema_model.", MEAN) | under("online.", RAW), "`online` of .*others.*: ema_model"),
    "with an optimiser": ({"model": RAW, "optimizer": {"state": {0: {"m": torch.ones(2)}}}}, "`model` of"),
    "with numpy's numbers": ({"state_dict": RAW, "best": np.float64(0.5), "n": np.int64(3), "x": np.ones(2)}, "`state"),
    "with arguments": ({"state_dict": RAW, "args": argparse.Namespace(lr=0.1, mean=np.float32(2))}, "`state_dict` of"),
}


@pytest.mark.parametrize("new_format", [True, False])
@pytest.mark.parametrize("name", SAVED)
def test_weights_are_found_and_what_was_mapped_is_said(tmp_path, name, new_format):
    content, says = SAVED[name]
    torch.save(content, tmp_path / "net.pt", _use_new_zipfile_serialization=new_format)
    model = small()
    line = load_fitting(model, tmp_path / "net.pt")
    assert all(torch.equal(v, RAW[n]) for n, v in model.state_dict().items())
    assert line == "" if says is None else re.search(says, line), line
    assert "\n" not in line


def test_the_other_weights_can_be_asked_for(tmp_path):
    torch.save(SAVED["beside its mean"][0], tmp_path / "net.pt")
    model = small()
    load_fitting(model, tmp_path / "net.pt", "state_dict_ema")
    assert all(torch.equal(v, MEAN[n]) for n, v in model.state_dict().items())
    with pytest.raises(CheckpointError, match="no weights 'ema' that fit; it holds state_dict, state_dict_ema"):
        load_fitting(model, tmp_path / "net.pt", "ema")


class Wrapped(nn.Module):
    """As torch.compile (``_orig_mod``) and Lightning (``model``) hold a network."""

    def __init__(self, name):
        super().__init__()
        setattr(self, name, small())


@pytest.mark.parametrize("wrap", [nn.DataParallel, lambda net: Wrapped("_orig_mod"), lambda net: Wrapped("model")])
def test_a_model_that_is_wrapped_itself_takes_weights_that_are_not(tmp_path, wrap):
    for content in (RAW, under("module.", RAW), {"state_dict": under("model.", RAW)}):
        torch.save(content, tmp_path / "net.pt")
        model = wrap(small())
        load_fitting(model, tmp_path / "net.pt")
        assert all(torch.equal(a, b) for a, b in zip(model.state_dict().values(), RAW.values(), strict=True))


def test_a_misfit_is_told_without_the_wrapper(tmp_path):
    torch.save({"state_dict": under("module.", RAW | {"fc.weight": torch.ones(9, 2)})}, tmp_path / "net.pt")
    with pytest.raises(CheckpointError, match=r"fit Sequential; of another shape: fc\.weight \(9, 2\) for \(3, 2\)\.$"):
        load_fitting(small(), tmp_path / "net.pt")
    torch.save(RAW | {"extra": torch.ones(1)}, tmp_path / "net.pt")
    with pytest.raises(CheckpointError, match="left over: extra"):
        load_fitting(small(), tmp_path / "net.pt")


def test_files_of_other_kinds_are_called_what_they_are(tmp_path):
    path = tmp_path / "net.pt"
    torch.jit.trace(small()[0], torch.rand(1, 1, 5, 5)).save(path)
    with pytest.raises(CheckpointError, match="is a TorchScript archive"):
        read_weights(path)
    with path.open("wb") as handle:
        np.savez(handle, conv=np.ones(2))
    with pytest.raises(CheckpointError, match=r"is an \.npz file of NumPy arrays \(conv\)"):
        read_weights(path)
    torch.export.save(torch.export.export(nn.Linear(2, 2), (torch.ones(1, 2),)), tmp_path / "net.pt2")
    with pytest.raises(CheckpointError, match=r"is a program of torch\.export"):
        read_weights(tmp_path / "net.pt2")
    path.write_bytes(b"\x89HDF\r\n\x1a\n" + bytes(100))
    with pytest.raises(CheckpointError, match="HDF5"):
        read_weights(path)


def test_nothing_but_listed_types_is_read(tmp_path):
    for content in (Evil(), np.array([Evil()], dtype=object), argparse.Namespace(x=Evil()), Path("x"), print):
        torch.save({"state_dict": RAW, "more": content}, tmp_path / "net.pt")
        with pytest.raises(CheckpointError, match="pickled code"):
            read_weights(tmp_path / "net.pt")
