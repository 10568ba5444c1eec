"""``ltbench predict`` and ``ltbench export``: a finished network in use, and the same from Python."""

from __future__ import annotations

import json
import shutil
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
import torch
from command_line import FAST, call, refused
from PIL import Image

import ltrobust_bench as lt
from ltrobust_bench.cli.main import main
from ltrobust_bench.data.pixels import pixels_of
from ltrobust_bench.errors import CheckFailed, DataError, LTBenchError, UsageError
from ltrobust_bench.plan.task import make_task
from ltrobust_bench.verbs import exporting, prediction
from ltrobust_bench.verbs.exporting import NEEDED, Whole, export

RUN = ["run", "--method", "at", "--dataset", "digits-lt", *FAST, "--set", "attack.steps=1", "--quiet"]


@pytest.fixture(scope="module")
def network(tmp_path_factory):
    """A run folder of a digits run."""
    place = tmp_path_factory.mktemp("run")
    assert main([*RUN, "--runs-dir", str(place / "runs"), "--results-dir", str(place / "results")]) == 0
    (folder,) = (place / "runs").iterdir()
    return folder


@pytest.fixture(scope="module")
def digits(tmp_path_factory):
    """Pictures of test digits, one of each class, as files."""
    source = make_task("digits-lt").source
    folder = tmp_path_factory.mktemp("digits")
    for label in range(10):
        pixels = source.test_images[list(source.test_labels).index(label)][0]
        Image.fromarray(pixels).save(folder / f"{label}.png")
    return folder


def test_a_picture_in_whatever_form_has_one_answer(network, digits):
    loaded = lt.load_model(network)
    path = digits / "0.png"
    picture = Image.open(path)
    pixels = np.asarray(picture)
    unit = torch.from_numpy(pixels / np.float32(255))[None]
    with torch.no_grad():
        shares = loaded.model(unit[None]).double().softmax(dim=1)[0]
    for image in (path, str(path), picture, picture.convert("RGBA"), pixels, pixels[..., None], unit, unit.numpy()):
        found = loaded.predict(image)
        assert found.name == str(int(shares.argmax())) and found.probability == float(shares.max())
        assert list(found.probabilities.values()) == sorted(shares.tolist(), reverse=True)
    many = loaded.predict([path, pixels, unit[None]])
    assert len(many) == 3 and many[0].probabilities == pytest.approx(found.probabilities)
    assert len(loaded.predict(torch.rand(5, 1, 8, 8))) == 5
    larger = picture.resize((80, 80), Image.Resampling.NEAREST)
    assert abs(loaded.predict(larger).probability - found.probability) < 0.2, "scaled to the network's size"


def test_colour_pictures_are_scaled_as_folders_of_images_are(tmp_path):
    generator = np.random.default_rng(0)
    for name in "ab":
        (tmp_path / "photos" / name).mkdir(parents=True)
        for i in range(5):
            pixels = generator.integers(0, 256, (30, 44, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(tmp_path / "photos" / name / f"{i}.png")
    source = make_task(f"folder:{tmp_path / 'photos'}@16").source
    stored = {image.tobytes() for image in (*source.train_images, *source.test_images)}
    for path in (tmp_path / "photos").rglob("*.png"):
        found = pixels_of(path, (3, 16, 16))
        assert np.round(255 * found[0]).astype(np.uint8).tobytes() in stored
    planes = np.asarray(Image.open(path)).transpose(2, 0, 1)
    assert (pixels_of(planes, (3, 16, 16)) == found).all(), "torchvision reads colour by colour"


@pytest.mark.parametrize(
    ("array", "says"),
    [
        (np.random.rand(3, 8, 8), r"shape \(3, 8, 8\) was given, and the network takes \(1, 8, 8\)"),
        (np.random.rand(8, 8), "give the picture itself"),
        (255 * np.random.rand(1, 8, 8), "look like 0 to 255: divide by 255"),
        (np.random.randn(1, 8, 8) - 1, "look normalised: give pixels in"),
        (np.full((1, 8, 8), np.nan), "NaN"),
        (np.zeros((1, 8, 8), dtype=int), "int64 is no type of pixels"),
        (np.zeros((8, 8, 7), dtype=np.uint8), "is no picture"),
    ],
)
def test_what_is_no_image_for_the_network_is_refused_in_one_line(array, says):
    with pytest.raises(UsageError, match=says) as refusal:
        pixels_of(array, (1, 8, 8))
    assert "\n" not in str(refusal.value)


def test_all_pictures_of_a_folder(capsys, network, digits, tmp_path):
    new = shutil.copytree(digits, tmp_path / "new")
    (new / "later").mkdir()
    (new / "9.png").rename(new / "later" / "9.PNG")
    (new / "Thumbs.db").write_text("no picture")
    (new / ".hidden.png").write_text("no picture")
    code, out, err = call(capsys, "predict", network, new, digits / "0.png", "--json")
    assert code == 0, err
    names = [f"new/{i}.png" for i in range(9)] + ["new/later/9.PNG", f"{digits.name}/0.png"]
    found = json.loads(out)
    assert [Path(one["image"]).as_posix()[-len(name) :] for one, name in zip(found, names, strict=True)] == names
    assert found[0]["probabilities"] == pytest.approx(found[-1]["probabilities"])
    (tmp_path / "empty").mkdir()
    assert "holds no image" in refused(capsys, "predict", network, tmp_path / "empty")


def test_a_robustness_of_few_test_images_is_warned_of():
    few, many = (prediction.Prediction("a", {"a": 1.0}, 1.0, tested) for tested in (3, 20))
    assert "100% of 3 test images" in few.warning and "not told apart from 44%" in few.warning, (
        "Wilson's: 3 / (3 + z^2)"
    )
    assert not many.warning and not prediction.Prediction("a", {"a": 1.0}).warning


def test_predict_names_classes_and_warns_of_those_that_are_easily_attacked(capsys, network, digits, monkeypatch):
    monkeypatch.setattr(prediction, "POOR", 1.1)  # a smoke run sees one class in everything, which no attack changes
    record = lt.load_model(network).record()
    files = sorted(digits.iterdir())
    code, out, err = call(capsys, "predict", network, *files, "--json")
    assert code == 0, err
    answers = json.loads(out)
    for answer in answers:
        robust = record.correct[-1][int(answer["name"])] / 10
        assert answer["robust"] == robust and answer["tested"] == 10
        assert bool(answer["warning"]) == (robust < 1.1)
        assert abs(sum(answer["probabilities"].values()) - 1) < 1e-6
    weak = {answer["warning"] for answer in answers} - {""}
    assert weak and prediction.Prediction("a", {"a": 1.0}, 1.0, 9).warning
    code, out, _ = call(capsys, "predict", network, *files, "--top", 2)
    assert code == 0 and all(f"warning: {line}" in out for line in weak)
    assert len([line for line in out.splitlines() if line.startswith("warning")]) == len(weak), "each is said once"
    first = next(line for line in out.splitlines() if line.startswith(f"{files[0]}: "))
    assert first.count("%") == 2
    assert "there is no image" in refused(capsys, "predict", network, digits / "none.png")
    with pytest.raises(DataError, match="is a folder; give the pictures in it"):
        lt.load_model(network).predict(digits)
    (digits.parent / "text.png").write_text("no image")
    assert "cannot be read as an image" in refused(capsys, "predict", network, digits.parent / "text.png")


def test_predict_says_when_nothing_is_known_of_attacks(capsys, network, digits, tmp_path):
    (tmp_path / "model.safetensors").write_bytes((network / "model.safetensors").read_bytes())
    code, out, _ = call(capsys, "predict", tmp_path, digits / "3.png")
    assert code == 0 and "is not known: no record" in out


@pytest.mark.parametrize("form", ["pt2", "torchscript", "onnx"])
def test_an_exported_network_computes_the_same_from_bytes(capsys, network, tmp_path, form):
    if form == "onnx" and any(find_spec(name) is None for name in NEEDED):
        pytest.skip("format onnx is tested where the extra [export] is installed (onnx, onnxscript, onnxruntime)")
    code, out, err = call(capsys, "export", network, "--format", form, "--output", tmp_path / "out")
    assert code == 0, err
    assert "uint8 [B, 8, 8, 1]" in out
    loaded, images = lt.load_model(network), torch.randint(0, 256, (7, 8, 8, 1), dtype=torch.uint8)
    with torch.no_grad():
        logits = loaded.model(images.permute(0, 3, 1, 2).float() / 255).numpy()
    _, reading = exporting._FORMATS[form]
    found, shares = reading(tmp_path / "out")(images)
    np.testing.assert_allclose(found, logits, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(shares.sum(axis=1), 1, rtol=1e-5)
    if form == "torchscript":
        about = {exporting.ABOUT: ""}
        torch.jit.load(tmp_path / "out", _extra_files=about)
        assert json.loads(about[exporting.ABOUT])["classes"] == [str(digit) for digit in range(10)]


def test_a_file_that_computes_something_else_is_not_kept(network, tmp_path, monkeypatch):
    """A mutant: the exporter forgets to divide by 255."""
    real = exporting._FORMATS["torchscript"]

    class Forgetful(Whole):
        def forward(self, images):
            logits = self.model(images.permute(0, 3, 1, 2).float())
            return logits, logits.softmax(dim=1)

    def write(module, *rest):
        real[0](Forgetful(module.model).eval(), *rest)

    monkeypatch.setitem(exporting._FORMATS, "torchscript", (write, real[1]))
    with pytest.raises(CheckFailed, match="differ by .* nothing was written"):
        export(network, "torchscript", tmp_path / "out")
    assert list(tmp_path.iterdir()) == []


def test_onnx_without_its_packages_is_one_line(network, monkeypatch):
    monkeypatch.setattr(exporting, "find_spec", lambda name: None)
    with pytest.raises(LTBenchError, match=r"pip install 'ltrobust-bench\[export\]'"):
        export(network, "onnx")
