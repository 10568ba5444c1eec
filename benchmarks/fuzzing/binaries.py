"""Files of bytes: archives, pictures, arrays, weights and checkpoints."""

from __future__ import annotations

import hashlib
import io
import json
import random
import shutil
import struct
import zipfile
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from PIL import Image
from safetensors.torch import save

from fuzzing.tools import NUMBERS, Kind, mutate_bytes, mutate_tree, odd_value
from ltrobust_bench.api import Method
from ltrobust_bench.data import archive
from ltrobust_bench.data.folders import image_folder
from ltrobust_bench.data.sources import Source
from ltrobust_bench.data.split import make_split
from ltrobust_bench.errors import CheckpointError
from ltrobust_bench.evaluation.state import State
from ltrobust_bench.judge.examine import Backbone, judged
from ltrobust_bench.judge.export import export
from ltrobust_bench.judge.graph import HEADER, Graph, GraphFile, Node, check_graph, probes, read_graph, write_graph
from ltrobust_bench.judge.interpret import Interpreted
from ltrobust_bench.judge.operations import ALLOWED, HERE, arguments
from ltrobust_bench.models.weights import load_strictly, read_weights
from ltrobust_bench.training.build import build_network
from ltrobust_bench.training.checkpoint import load_checkpoint, read_model, save_checkpoint, save_model
from ltrobust_bench.verbs.counterexamples import _arrays as read_examples

SHAPE, GREY, CLASSES = (3, 8, 8), (1, 8, 8), 4


def repacked(content: bytes, rng: random.Random) -> bytes:
    """The members of a zip file with some changed, left out, put in, compressed, or said to be larger than they are."""
    memory = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(content)) as old, zipfile.ZipFile(memory, "w") as new:
        members = [(info, old.read(info)) for info in old.infolist()]
        chosen = rng.randrange(len(members))
        for i, (info, data) in enumerate(members):
            name, method = info.filename, info.compress_type
            if i == chosen:
                match rng.randrange(6):
                    case 0:
                        continue
                    case 1:
                        data = mutate_bytes(data, rng)
                    case 2:
                        method = rng.choice([zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
                    case 3:
                        name = rng.choice(["../x", "/x", "x" * 300, name + "\n", "", name.upper()])
                    case 4:
                        data = bytes(rng.choice([10**6, 10**7]))
                        method = zipfile.ZIP_DEFLATED
                    case 5:
                        new.writestr(zipfile.ZipInfo("another"), data)
            new.writestr(zipfile.ZipInfo(name), data, method)
    data = memory.getvalue()
    if rng.randrange(4) == 0:  # sizes in the directory that the members do not have
        at = data.rfind(b"PK\1\2")
        if at >= 0:
            lie = struct.pack("<I", rng.choice(NUMBERS) % 2**32)
            offset = at + rng.choice([20, 24, 42])
            data = data[:offset] + lie + data[offset + 4 :]
    return data


class Archives(Kind):
    """Archives of data sets; the digests in a manifest are made to fit again, as a liar would."""

    name: ClassVar[str] = "archives"
    share: ClassVar[float] = 0.5

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        generator = np.random.default_rng(0)
        labels = np.repeat(np.arange(4), 12)
        images = generator.integers(0, 256, (48, *SHAPE), dtype=np.uint8)
        source = Source(images, labels, images[::2], labels[::2], ("a", "b", "c", "d"), sha256=64 * "0")
        split = make_split(labels, labels[::2], 4.0, "exp")
        path = folder / "x.zip"
        archive.write(path, "folder-x-8px", source, split, imbalance_ratio=4.0, profile="exp")
        self.base = path.read_bytes()
        assert archive.verify(path)

    def attempt(self, rng: random.Random, place: Path) -> None:
        path = place / "x.zip"
        match rng.randrange(4):
            case 0:
                path.write_bytes(mutate_bytes(self.base, rng))
            case 1:
                path.write_bytes(repacked(self.base, rng))
            case _:
                self._lie(path, rng)
        archive.verify(path)
        archive.read(path)

    def _lie(self, path: Path, rng: random.Random) -> None:
        with zipfile.ZipFile(io.BytesIO(self.base)) as file:
            members = {name: file.read(name) for name in file.namelist()}
        manifest = json.loads(members.pop(archive.MANIFEST))
        if rng.randrange(2):
            name = rng.choice(sorted(members))
            members[name] = mutate_bytes(members[name], rng)
        else:
            field = rng.choice(sorted(manifest))
            if isinstance(manifest[field], (dict, list)):
                mutate_tree(manifest[field], rng)
            else:
                manifest[field] = odd_value(rng)
        if isinstance(manifest.get("members"), dict):
            for name, data in members.items():
                if rng.randrange(8):
                    manifest["members"][name] = {"bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()}
        stated = json.dumps(manifest).encode()
        with zipfile.ZipFile(path, "w") as file:
            for name, data in {archive.MANIFEST: stated, **members}.items():
                file.writestr(name, data)


class Images(Kind):
    """A folder of pictures, one of which is odd, or has an odd place or name."""

    name: ClassVar[str] = "images"
    share: ClassVar[float] = 0.5

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        generator = np.random.default_rng(0)
        self.bases = []
        for mode, form, terms in (
            ("RGB", "PNG", {}), ("L", "PNG", {}), ("P", "PNG", {}), ("RGBA", "PNG", {}), ("1", "PNG", {}),
            ("RGB", "JPEG", {"exif": _turned()}), ("CMYK", "JPEG", {}), ("RGB", "BMP", {}), ("RGB", "PPM", {}),
            ("RGB", "TIFF", {"compression": "tiff_lzw"}), ("L", "TIFF", {}), ("RGB", "WEBP", {"lossless": True}),
            ("P", "GIF", {}),
        ):  # fmt: skip
            pixels = generator.integers(0, 256, (12, 17, 3), dtype=np.uint8)
            memory = io.BytesIO()
            Image.fromarray(pixels).convert(mode).save(memory, form, **terms)
            self.bases.append(memory.getvalue())

    def attempt(self, rng: random.Random, place: Path) -> None:
        root = place / "photos"
        for name in "ab":
            (root / name).mkdir(parents=True)
            for i in range(2):
                (root / name / f"{i}.png").write_bytes(self.bases[i])
        base = rng.choice(self.bases)
        odd = mutate_bytes(base, rng) if rng.randrange(4) else _resized(base, rng)
        name = rng.choice(["x.png", "x.JPG", "x.tiff", "x.webp", "x\n\x1b[2J.png", "\udcff.png", "x.txt", ".x.png"])
        (root / "a" / name).write_bytes(odd)
        self._odd_place(root, rng)
        image_folder(root, rng.choice([8, 32]))

    def _odd_place(self, root: Path, rng: random.Random) -> None:
        match rng.randrange(10):
            case 0:
                (root / "a" / "up").symlink_to(root)
            case 1:
                (root / "b" / "self.png").symlink_to("self.png")
            case 2:
                (root / "b" / "zero.png").symlink_to("/dev/zero")
            case 3:
                __import__("os").mkfifo(root / "b" / "pipe.png")
            case 4:
                (root / "b" / "0.png").unlink()
            case 5:
                (root / rng.choice(["train", "test", "__MACOSX", "c\x1b", "\udcfe", ".git"])).mkdir()
            case 6:
                (root / "b" / "folder.png").mkdir()
            case 7:
                (root / "b").rename(root / "\u202eb")


def _turned() -> bytes:
    exif = Image.Exif()
    exif[0x0112] = 6
    return exif.tobytes()


def _resized(base: bytes, rng: random.Random) -> bytes:
    """A PNG or BMP that says that it is larger than it is; others cut off."""
    size = rng.choice([0, 1, 3000, 9300, 13_000, 2**15, 2**31 - 1])
    if base.startswith(b"\x89PNG"):
        chunk = b"IHDR" + struct.pack(">II", size, size) + base[24:29]
        return base[:12] + chunk + struct.pack(">I", __import__("zlib").crc32(chunk)) + base[33:]
    if base.startswith(b"BM"):
        return base[:18] + struct.pack("<II", size, size) + base[26:]
    return base[: rng.randrange(len(base))]


class Arrays(Kind):
    """Examples for `record lower`: .npz files whose headers and members lie."""

    name: ClassVar[str] = "npz"

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.bases = []
        for save_arrays in (np.savez, np.savez_compressed):
            memory = io.BytesIO()
            save_arrays(memory, index=np.arange(5), images=np.zeros((5, *SHAPE), dtype=np.float32))
            self.bases.append(memory.getvalue())

    def attempt(self, rng: random.Random, place: Path) -> None:
        base = rng.choice(self.bases)
        match rng.randrange(4):
            case 0:
                content = mutate_bytes(base, rng)
            case 1:
                content = repacked(base, rng)
            case _:
                content = self._lie(rng)
        (place / "x.npz").write_bytes(content)
        index, images = read_examples(place / "x.npz", content)
        assert index.ndim == 1 and images.ndim == 4 and len(index) == len(images), "arrays that do not belong together"

    def _lie(self, rng: random.Random) -> bytes:
        memory = io.BytesIO()
        with zipfile.ZipFile(memory, "w", rng.choice([zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])) as file:
            for name in ("index", "images"):
                sizes = [0, 1, 5, 3, 8, -1, 10**6, 2**31, 2**62, 10**30]
                shape = tuple(rng.choice(sizes) for _ in range(rng.choice([0, 1, 4, 4, 40])))
                kind = rng.choice(
                    ["<f4", "<f8", "|u1", "<i8", ">i2", "|O", "<U9", "|b1", "<c16", "|V8", "<M8[s]", "f16", "??", ""]
                )
                header = {"descr": kind, "fortran_order": rng.choice([False, True, 3]), "shape": shape}
                if rng.randrange(6) == 0:
                    header.pop(rng.choice(sorted(header)))
                text = repr(header).encode().ljust(rng.choice([0, 118, 20_000])) + b"\n"
                version = rng.choice([b"\1\0", b"\1\0", b"\2\0", b"\3\0", b"\x09\0"])
                length = struct.pack(
                    "<H" if version == b"\1\0" else "<I", rng.choice([len(text), len(text), 0, 65_535])
                )
                size = rng.choice([0, 40, 5 * 192, 5 * 192 * 4, 10**6])
                file.writestr(f"{name}.npy", b"\x93NUMPY" + version + length + text + bytes(size))
        return memory.getvalue()


class Weights(Kind):
    """Weights of somebody else: what `torch.save` wrote, and safetensors."""

    name: ClassVar[str] = "weights"

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        torch.manual_seed(0)
        self.net = torch.nn.Sequential(torch.nn.Conv2d(3, 2, 3), torch.nn.BatchNorm2d(2), torch.nn.Linear(4, 3))
        weights = self.net.state_dict()
        self.bases = [(".safetensors", save(weights))]
        for content, terms in (
            (weights, {}),
            ({"state_dict": weights, "epoch": 3}, {}),
            (weights, {"_use_new_zipfile_serialization": False}),
        ):
            memory = io.BytesIO()
            torch.save(content, memory, **terms)
            self.bases.append((".pt", memory.getvalue()))

    def attempt(self, rng: random.Random, place: Path) -> None:
        suffix, base = rng.choice(self.bases)
        path = place / f"x{suffix}"
        content = mutate_bytes(base, rng)
        if suffix == ".safetensors" and rng.randrange(2):
            content = mutated_header(base, rng)
        elif base.startswith(b"PK") and rng.randrange(2):
            content = repacked(base, rng)
        path.write_bytes(content)
        found = read_weights(path)
        load_strictly(self.net, found, path)


def mutated_header(content: bytes, rng: random.Random) -> bytes:
    """A safetensors file whose header says something else, and has the length that it says, or not."""
    length = int.from_bytes(content[:8], "little")
    header = json.loads(content[8 : 8 + length])
    mutate_tree(header, rng)
    text = json.dumps(header).encode()
    stated = rng.choice([len(text), len(text), len(text), *NUMBERS]) % 2**64
    return stated.to_bytes(8, "little") + text + content[8 + length :]


class Graphs(Kind):
    """Graphs by which a network is judged, whose operations, sizes and headers are others; the logits are made to fit
    again, as a liar would. What is accepted gives each image its logits, whatever its batch."""

    name: ClassVar[str] = "graphs"
    share: ClassVar[float] = 0.5

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        torch.manual_seed(0)
        network = build_network("small", GREY, CLASSES, Method()).eval()
        self.weights = network.state_dict()
        self.sound = export(network, GREY, self.weights)
        write_graph(folder / "sound", self.sound)
        self.base = (folder / "sound").read_bytes()

    def attempt(self, rng: random.Random, place: Path) -> None:
        path = place / "x.safetensors"
        match rng.randrange(6):
            case 0:
                path.write_bytes(mutate_bytes(self.base, rng))
            case 1:
                path.write_bytes(mutated_header(self.base, rng))
            case 2:
                path.write_bytes(self._with(rng))
            case _:
                write_graph(path, self._fitting(rng))
        found = judged(read_graph(path), self.weights, Backbone("small"), GREY, CLASSES)
        images = torch.cat(probes(GREY))[:4]
        with torch.no_grad():
            together, alone = found(images), torch.cat([found(image[None]) for image in images])
        assert torch.allclose(together, alone, atol=1e-4), "an image's logits depend on its batch"

    def _with(self, rng: random.Random) -> bytes:
        """The file with another graph in its header, whatever that says."""
        length = int.from_bytes(self.base[:8], "little")
        header = json.loads(self.base[8 : 8 + length])
        graph = json.loads(header["__metadata__"][HEADER])
        mutate_tree(graph, rng)
        header["__metadata__"][HEADER] = json.dumps(graph)
        text = json.dumps(header).encode()
        return len(text).to_bytes(8, "little") + text + self.base[8 + length :]

    def _fitting(self, rng: random.Random) -> GraphFile:
        """Other operations after the backbone, and the logits that they give, if they give any."""
        start = len(self.sound.graph.nodes) - 1
        nodes = self.sound.graph.nodes[:start]
        constants = {"c": torch.ones(rng.choice([1, 1, 2, CLASSES]))}
        for number in range(start, start + rng.choice([1, 1, 2, 3, 5, 9])):
            op = rng.choice(ALLOWED)
            given = [self._value(op, name, kind, number, rng) for name, kind in arguments(op)]
            nodes = [*nodes, Node(op=op, given=given)]
        if rng.randrange(2):
            head = ["weight:head.weight", "weight:head.bias"]
            nodes = [*nodes, Node(op="linear.default", given=[f"node:{len(nodes) - 1}", *head])]
        graph, logits = Graph(version=1, nodes=nodes), self.sound.logits
        try:
            check_graph(graph, constants)
            values = {f"weight:{name}": value for name, value in self.weights.items()} | {"constant:c": constants["c"]}
            with torch.no_grad():
                sizes = Interpreted(nodes, {name: value.to("meta") for name, value in values.items()})
                if sizes(torch.empty(1, *GREY, device="meta")).numel() < 10**6:
                    logits = torch.cat([Interpreted(nodes, values)(batch) for batch in probes(GREY)])
        except Exception:  # noqa: BLE001 - what cannot be computed is given logits of something else
            logits = self.sound.logits
        return GraphFile(graph, constants, logits)

    def _value(self, op: str, name: str, kind: str, number: int, rng: random.Random) -> Any:
        """Something that an operation might take, more or less."""
        if "Tensor" in kind:
            near = [f"node:{number - 1}"] * 6 + [f"node:{number - 2}", "image", "constant:c", "weight:head.weight"]
            return rng.choice([*near, "weight:head.bias", "weight:backbone.norms.0.weight", 2.0])
        if "List[int]" in kind:
            return rng.choice([[0], [1], [0, 1], [1, 1], [2, 2], [3, 3], [-1], [], [10_000, 1], None])
        if kind == "ScalarType" or "ScalarType" in kind:
            return rng.choice(["float32", None, "float64"])
        if "bool" in kind:
            return True if (op, name) in HERE else rng.choice([True, False])
        return rng.choice([0, 1, 2, -1, 2.0, 0.5, 1e-12, 30.0, 10_000, 0.0, None])


class Checkpoints(Kind):
    """A run folder's networks, checkpoints, pieces and evaluation state; digests are made to fit again."""

    name: ClassVar[str] = "checkpoints"

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        weights = {"a.weight": torch.arange(6.0).reshape(2, 3), "a.count": torch.tensor(3)}
        self.run = folder / "run"
        self.run.mkdir()
        save_model(self.run / "model.safetensors", weights, {"run": {"method": "at"}, "class_names": ["a", "b"]})
        save_checkpoint(
            self.run, 1, weights, {"optimizer": {"state": {0: {"momentum": torch.zeros(3)}}}, "history": []}
        )
        state = State("x", clean=np.ones(9, dtype=bool), broken={"fgsm": np.zeros(9, dtype=np.uint8)})
        state.save(self.run / "evaluation.npz")
        self.files = sorted(path.relative_to(self.run) for path in self.run.rglob("*") if path.is_file())

    def attempt(self, rng: random.Random, place: Path) -> str | None:
        run = place / "run"
        shutil.copytree(self.run, run)
        path = run / rng.choice(self.files)
        content = path.read_bytes()
        if path.suffix == ".safetensors" and rng.randrange(2):
            content = mutated_header(content, rng)
        elif path.suffix in (".pt", ".npz") and rng.randrange(2):
            end = b"" if path.suffix == ".pt" else content[-32:]
            content = repacked(content[: len(content) - len(end)], rng)
            content += hashlib.sha256(content).digest() if end else b""
        elif path.suffix == ".json":
            raw = json.loads(content)
            mutate_tree(raw, rng)
            content = json.dumps(raw).encode()
        else:
            content = mutate_bytes(content, rng)
        path.write_bytes(content)
        if path.parent != run and path.suffix != ".json" and rng.randrange(2):
            self._seal(path.parent)
        elif path.parent == run and rng.randrange(6) == 0:
            self._in_pieces(path, content, rng)
        State.kept(run / "evaluation.npz")
        refused = []
        for read in (read_model, lambda place: load_checkpoint(place, torch.device("cpu"))):
            try:
                read(run)
            except CheckpointError as error:
                refused.append(error)
        if refused:
            raise refused[0]
        return None

    def _seal(self, folder: Path) -> None:
        digests = {p.name: hashlib.sha256(p.read_bytes()).hexdigest() for p in folder.iterdir() if p.suffix != ".json"}
        (folder / "meta.json").write_text(json.dumps({"sha256": digests}))

    def _in_pieces(self, path: Path, content: bytes, rng: random.Random) -> None:
        path.unlink()
        index: Any = {"sha256": [hashlib.sha256(content).hexdigest()]}
        path.with_name(f"{path.name}-1-of-1").write_bytes(content)
        mutate_tree(index, rng)
        path.with_name(f"{path.name}.pieces").write_text(json.dumps(index))
