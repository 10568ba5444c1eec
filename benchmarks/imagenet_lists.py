"""Lists of ImageNet-LT's numbers without ImageNet, to ask what it costs: ``python benchmarks/imagenet_lists.py DIR``.

Writes lists as long and as imbalanced as the published ones (115,846 images of 1,000 classes, 1,280 to 5; 50 test
images a class), which name eight drawn pictures of 500x375 pixels again and again. Then

    ltbench run --method at-bsl --dataset imagenet-lt --data-dir DIR --dry-run --device cpu --threads 1

says what the real data set would cost, and that the lists are not the published ones.
"""

from __future__ import annotations

from pathlib import Path

import click
import numpy as np
from PIL import Image, ImageFilter

from ltrobust_bench.data.lists import PUBLISHED
from ltrobust_bench.files import write_text

PICTURES, SIZE, BLUR = 8, (500, 375), 3
"""How many are drawn, as ImageNet's are on average, and as smooth as photographs, so that they decode like them."""


def counts() -> np.ndarray:
    """Images of each class: falling from the largest to the smallest as a power, as many in all as are published."""
    known = PUBLISHED["imagenet-lt"]
    assert known.extremes is not None
    most, least = known.extremes

    def falling(power: float) -> np.ndarray:
        rank = np.linspace(0, 1, known.classes)
        return np.rint(least + (most - least) * (1 - rank) ** power).astype(int)

    low, high = 1.0, 50.0
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (middle, high) if falling(middle).sum() > known.train else (low, middle)
    found = falling(high)
    found[1 : 1 + known.train - found.sum()] += 1
    return found


@click.command()
@click.argument("folder", type=click.Path(path_type=Path))
def main(folder: Path) -> None:
    """Write lists and pictures into FOLDER."""
    draws, known = np.random.default_rng(0), PUBLISHED["imagenet-lt"]
    for part, each in (("train", counts()), ("val", np.full(known.classes, known.test // known.classes))):
        (folder / part).mkdir(parents=True, exist_ok=True)
        for number in range(PICTURES):
            noise = draws.integers(0, 256, (*SIZE[::-1], 3), dtype=np.uint8)
            picture = Image.fromarray(noise).filter(ImageFilter.GaussianBlur(BLUR))
            picture.save(folder / part / f"{number}.JPEG", quality=90)
        labels = np.repeat(np.arange(known.classes), each).tolist()
        lines = [f"{part}/{place % PICTURES}.JPEG {label}\n" for place, label in enumerate(labels)]
        write_text(folder / f"ImageNet_LT_{'train' if part == 'train' else 'test'}.txt", "".join(lines))
        click.echo(f"{part}: {len(lines):,} lines, {max(each):,} to {min(each)} a class")


if __name__ == "__main__":
    main()
