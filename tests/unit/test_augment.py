"""Augmentation policies: what torchvision makes of each image, each by its own draw, reproducibly."""

from __future__ import annotations

import pytest
import torch

from ltrobust_bench.data.augment import augmentation
from ltrobust_bench.data.loader import DeviceData, TrainLoader
from ltrobust_bench.plan.make import make_plan

POLICIES = ["randaugment", "autoaugment"]


def images(count=12, channels=3, size=32):
    generator = torch.Generator().manual_seed(0)
    return torch.randint(0, 256, (count, channels, size, size), generator=generator, dtype=torch.uint8)


@pytest.mark.parametrize("name", POLICIES)
@pytest.mark.parametrize(("channels", "size"), [(3, 32), (1, 8), (1, 28)])
def test_shape_type_and_draws(name, channels, size):
    """The same picture many times comes out in many ways; the same seed gives the same again, another seed does not."""
    policy, same = augmentation(name), images(1, channels, size).expand(24, -1, -1, -1)
    out = policy(same, 1)
    assert out.shape == same.shape and out.dtype == torch.uint8
    assert len({image.numpy().tobytes() for image in out}) > 6
    assert torch.equal(out, policy(same, 1)) and not torch.equal(out, policy(same, 2))


def test_randaugment_is_torchvisions_with_two_operations_at_magnitude_8():
    from torchvision.transforms import InterpolationMode, v2

    reference = v2.RandAugment(2, 8, 31, InterpolationMode.NEAREST)
    torch.manual_seed(5)
    expected = torch.stack([reference(image) for image in images()])
    assert torch.equal(augmentation("randaugment")(images(), 5), expected)


def test_autoaugment_is_torchvisions_cifar10_policy():
    from torchvision.transforms import InterpolationMode, v2

    reference = v2.AutoAugment(v2.AutoAugmentPolicy.CIFAR10, InterpolationMode.NEAREST)
    torch.manual_seed(5)
    expected = torch.stack([reference(image) for image in images()])
    assert torch.equal(augmentation("autoaugment")(images(), 5), expected)
    other = v2.AutoAugment(v2.AutoAugmentPolicy.SVHN, InterpolationMode.NEAREST)
    torch.manual_seed(5)
    assert not torch.equal(torch.stack([other(image) for image in images()]), expected)


@pytest.mark.parametrize("name", POLICIES)
@pytest.mark.parametrize(("channels", "size"), [(3, 32), (1, 8)])
def test_images_that_pass_an_operation_together_come_out_as_one_by_one(name, channels, size):
    """Bit for bit, with the same draws; smooth and dark pictures among them, which noise is not."""
    from torchvision.transforms import InterpolationMode, v2

    nearest = InterpolationMode.NEAREST
    alone = {
        "randaugment": v2.RandAugment(2, 8, 31, nearest),
        "autoaugment": v2.AutoAugment(v2.AutoAugmentPolicy.CIFAR10, nearest),
    }
    noise = images(128, channels, size)
    noise[::3] = torch.nn.functional.avg_pool2d(noise[::3].float(), 3, 1, 1).byte()
    noise[1::3] = noise[1::3] // 4 + 20
    given = noise.clone()
    for seed in range(3):
        torch.manual_seed(seed)
        expected = torch.stack([alone[name](image) for image in noise])
        assert torch.equal(augmentation(name)(noise, seed), expected)
    assert torch.equal(noise, given)


def test_an_operation_is_called_once_for_all_images_that_take_it(monkeypatch):
    """On a GPU the number of calls is the time: 128 images alone are 256 of them, 14 operations of two signs 48."""
    from torchvision.transforms import v2

    calls, original = [], v2.RandAugment._apply_image_or_video_transform

    def counted(self, images, name, magnitude, *others, **named):
        calls.append((name, magnitude))
        return original(self, images, name, magnitude, *others, **named)

    monkeypatch.setattr(v2.RandAugment, "_apply_image_or_video_transform", counted)
    augmentation("randaugment")(images(128), 0)
    assert max(calls.count(call) for call in calls) <= 2 and len(calls) <= 48


def test_the_global_generator_is_put_back():
    torch.manual_seed(3)
    expected = torch.rand(4)
    torch.manual_seed(3)
    augmentation("randaugment")(images(), 9)
    assert torch.equal(torch.rand(4), expected)


def test_none_is_nothing():
    assert augmentation("none") is None


def loader(name):
    def in_order(labels, draws, epoch, generator):
        return torch.arange(len(labels)).numpy()

    data = DeviceData(images(), torch.arange(12) % 3)
    return TrainLoader(data, in_order, batch_size=4, steps=3, seed=0, padding=0, flip=False, augment=name)


def test_batches_of_an_epoch_are_augmented_before_crop_and_differently_each_epoch():
    plain, first, again, second = (
        torch.cat([x for x, _, _ in loader(name).epoch(epoch)])
        for name, epoch in (("none", 1), ("randaugment", 1), ("randaugment", 1), ("randaugment", 2))
    )
    assert torch.equal(plain, images() / 255.0)
    assert torch.equal(first, again) and not torch.equal(first, second) and not torch.equal(first, plain)


def test_the_policy_is_in_the_record_and_off_the_common_recipe():
    plan = make_plan("at-bsl", "digits-lt", settings={"augment": "randaugment"})
    assert plan.run.recipe.augment == "randaugment" and plan.run.overrides == {"augment": "randaugment"}
    assert make_plan("at-bsl", "digits-lt", track="paper").run.recipe.augment == "autoaugment"
    plain = make_plan("at-bsl", "digits-lt")
    assert plain.run.recipe.augment == "none" and plain.run.key() != plan.run.key()
