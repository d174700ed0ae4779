"""ImageNet's folders: which images train, validate and test, numbers of classes, and decoding when it is needed."""

from __future__ import annotations

import pickle
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from bitwright import networks
from bitwright.datasets import Dataset, imagenet
from bitwright.datasets._image_files import ImageFiles
from bitwright.errors import ConfigError, DataError
from bitwright.modules import Weights, forward
from bitwright.networks.checkpoints import initialise
from bitwright.networks.inverted_residual import LINEAR_FLOAT, build

TENCH, GOLDFISH, TISSUE = "n01440764", "n01443537", "n15075141"  # of ILSVRC-2012 the first, the second and the last


def picture(path: Path, size: tuple[int, int] = (40, 30), seed: int = 0) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(seed).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
    Image.fromarray(pixels).save(path)


def write(root: Path, **counts: int) -> Path:
    """`counts` images for each of two classes of ImageNet in folders of these names."""
    seed = 0
    for part, count in counts.items():
        for wnid in (TISSUE, GOLDFISH):
            for number in range(count):
                picture(root / part / wnid / f"{number}.png", seed=(seed := seed + 1))
    return root


def load(root: Path, **options: object) -> Dataset:
    return imagenet.load(root, crop=16, resize=20, **options)  # type: ignore[arg-type]


def names(part: object) -> set[str]:
    assert isinstance(part, ImageFiles)
    return {f"{part.folder.name}/{file.decode()}" for file in part.files}


def data_error(root: Path, **options: object) -> str:
    with pytest.raises(DataError) as raised:
        load(root, **options)
    assert "\n" not in str(raised.value)
    return str(raised.value)


def samples(shared: Path) -> Path:
    folder = shared / "data" / "imagenet-samples"
    if not folder.is_dir():
        pytest.skip("there are no ImageNet samples in the shared data")
    return folder


# parts


def test_as_published_the_images_of_val_validate_and_test(tmp_path: Path) -> None:
    loaded = load(write(tmp_path, train=4, val=3))
    assert [len(part) for part in (loaded.train, loaded.validation, loaded.test)] == [8, 6, 6]
    assert names(loaded.train) == {f"train/{w}/{i}.png" for w in (TISSUE, GOLDFISH) for i in range(4)}
    assert names(loaded.validation) == names(loaded.test)
    assert loaded.shape == (3, 16, 16)


def test_held_out_images_are_always_the_same_and_of_the_training_images(tmp_path: Path) -> None:
    write(tmp_path, train=30, val=3)
    first, second = (load(tmp_path, validation=20) for _ in range(2))
    assert [len(part) for part in (first.train, first.validation, first.test)] == [40, 20, 6]
    assert names(first.train) | names(first.validation) == names(load(tmp_path).train)
    assert names(first.validation) == names(second.validation)
    assert set(first.validation.labels.tolist()) == {1, 999}
    with pytest.raises(ConfigError, match="validation takes 1 to 59 of the 60 training images, got 60"):
        load(tmp_path, validation=60)


def test_without_training_images_the_data_set_can_be_evaluated_on(tmp_path: Path) -> None:
    loaded = load(write(tmp_path, val=3))
    assert (len(loaded.train), len(loaded.test)) == (0, 6)
    assert loaded.shape == (3, 16, 16)
    assert loaded.pixel_statistics[0] == pytest.approx((123.675, 116.28, 103.53))
    assert len(loaded.classes) == 1000
    assert "0 training images" in data_error(tmp_path, validation=5)


def test_any_folder_can_be_trained_on_and_val_for_overfitting(tmp_path: Path) -> None:
    write(tmp_path, val=3, few=2)
    assert names(load(tmp_path, train="few").train) == {
        f"few/{w}/{i}.png" for w in (TISSUE, GOLDFISH) for i in range(2)
    }
    loaded = load(tmp_path, train="val")
    assert names(loaded.train) == names(loaded.test)
    assert "no folder many/" in data_error(tmp_path, train="many")


def test_the_folder_may_be_one_below_the_root(tmp_path: Path) -> None:
    write(tmp_path / "imagenet", train=1, val=2)
    assert [len(part) for part in (load(tmp_path).train, load(tmp_path).test)] == [2, 4]


def test_folders_that_hold_no_data_set_say_what_they_should_hold(tmp_path: Path) -> None:
    assert re.search(r"no folder val/: .* val/CLASS/\*\.JPEG", data_error(tmp_path))
    (tmp_path / "val").mkdir()
    assert "holds no images" in data_error(tmp_path)
    assert "at least two; found 0" in data_error(tmp_path, classes="folders")
    (tmp_path / "val" / TENCH).mkdir()
    assert f"{tmp_path / 'val'} holds no images" in data_error(tmp_path)
    write(tmp_path, val=1)
    (tmp_path / "train").mkdir()
    assert f"{tmp_path / 'train'} holds no images" in data_error(tmp_path)


@pytest.mark.parametrize("options", [{"crop": 0}, {"crop": 30}, {"workers": -1}, {"validation": -1}])
def test_options_that_mean_nothing_are_refused(tmp_path: Path, options: dict[str, int]) -> None:
    with pytest.raises(ConfigError, match="imagenet"):
        imagenet.load(write(tmp_path, val=1), **({"crop": 16, "resize": 20} | options))  # type: ignore[arg-type]


# classes


def test_there_are_1000_classes_in_order() -> None:
    from importlib.resources import files

    wnids = files("bitwright.datasets").joinpath("imagenet_wnids.txt").read_text().split()
    assert len(wnids) == len(set(wnids)) == 1000
    assert wnids == sorted(wnids)
    assert all(re.fullmatch(r"n\d{8}", wnid) for wnid in wnids)
    # published indices: tench, goldfish, great white shark, tabby, golden retriever, toilet tissue
    found = [wnids.index(w) for w in (TENCH, GOLDFISH, "n01484850", "n02123045", "n02099601", TISSUE)]
    assert found == [0, 1, 2, 281, 207, 999]


def test_folders_of_some_classes_keep_their_published_numbers(tmp_path: Path) -> None:
    loaded = load(write(tmp_path, train=2, val=1))
    assert loaded.train.labels.tolist() == [1, 1, 999, 999]
    assert loaded.classes[1] == GOLDFISH
    picture(tmp_path / "val" / "cat" / "0.png")
    assert "none of the 1000 classes: cat" in data_error(tmp_path)


def test_other_folders_are_numbered_in_their_order(tmp_path: Path) -> None:
    for name in ("train/zebra", "train/ant", "train/cat", "val/cat", "val/zebra"):
        picture(tmp_path / name / "0.png")
    loaded = load(tmp_path, classes="folders")
    assert loaded.classes == ("ant", "cat", "zebra")
    assert loaded.test.labels.tolist() == [1, 2]
    picture(tmp_path / "val" / "dog" / "0.png")
    assert "none of the 3 classes: dog" in data_error(tmp_path, classes="folders")


# batches


@pytest.mark.parametrize("workers", [0, 2])
def test_batches_are_the_middles_of_the_resized_pictures(tmp_path: Path, workers: int) -> None:
    sizes = [(40, 30), (30, 40), (20, 20), (16, 90), (200, 20)]
    for number, size in enumerate(sizes):
        picture(tmp_path / "val" / TENCH / f"{number}.png", size, number)
    loaded = load(tmp_path, workers=workers)
    images, labels = loaded.test.batch(slice(None))
    assert images.dtype == torch.uint8
    assert images.is_contiguous(memory_format=torch.channels_last)
    assert labels.tolist() == [0] * 5
    for number, (width, height) in enumerate(sizes):
        short = min(width, height)
        resized = Image.open(tmp_path / "val" / TENCH / f"{number}.png").resize(
            (20 * width // short, 20 * height // short), Image.Resampling.BILINEAR
        )
        left, top = ((side - 16) // 2 for side in resized.size)
        middle = np.asarray(resized)[top : top + 16, left : left + 16]
        assert np.array_equal(images[number].permute(1, 2, 0), middle)
    assert torch.equal(images, torch.cat([loaded.test.batch(slice(i, i + 1))[0] for i in range(5)]))
    assert torch.equal(images, torch.cat([batch for batch, _ in loaded.test.in_batches(2)]))


def test_kinds_of_pictures_may_be_mixed(tmp_path: Path) -> None:
    folder = tmp_path / "val" / TENCH
    folder.mkdir(parents=True)
    grey = Image.new("RGB", (30, 20), (200, 200, 200))
    for number, mode in enumerate(["L", "LA", "RGB", "RGBA"]):
        grey.convert(mode).save(folder / f"{number}.png")
    grey.quantize(4).save(folder / "4.png")
    Image.new("CMYK", (30, 20), (0, 0, 0, 55)).save(folder / "5.jpg")
    images, _ = load(tmp_path).test.batch(slice(None))
    assert images.shape == (6, 3, 16, 16)
    assert int((images.int() - 200).abs().max()) <= 2


@pytest.mark.parametrize("workers", [0, 2])
def test_a_damaged_file_is_named(tmp_path: Path, workers: int) -> None:
    write(tmp_path, val=40)
    bad = tmp_path / "val" / TISSUE / "17.png"
    bad.write_bytes(b"no picture")
    test = load(tmp_path, workers=workers).test
    for read in (lambda: test.batch(slice(None)), lambda: list(test.in_batches(7))):
        with pytest.raises(DataError) as raised:
            read()
        assert str(raised.value).startswith(f"{bad} is truncated, corrupt or no image")
        assert "\n" not in str(raised.value)
    bad.unlink()
    with pytest.raises(DataError, match=re.escape(str(bad))):
        test.batch(slice(None))


def test_a_part_can_be_sent_to_a_process_and_keeps_its_device(tmp_path: Path) -> None:
    test = load(write(tmp_path, val=2)).test
    sent = pickle.loads(pickle.dumps(test))
    assert torch.equal(sent.batch(slice(None))[0], test.batch(slice(None))[0])
    moved = test.to(torch.device("meta"))
    assert moved.device.type == moved[1:].device.type == "meta"


def test_a_published_network_recognises_the_samples(shared: Path) -> None:
    """ProxylessNAS of width 0.3, measured on all 1,000 samples: 59.7 % top-1, 83.3 % top-5. Here are 334 of them."""
    folder, name = shared / "data" / "models" / "proxylessnas", "proxyless-w0.3-r176_imagenet"
    if not folder.is_dir():
        pytest.skip("there is no published network in the shared data")
    blocks = networks.read(folder / f"{name}.json")
    network = build(blocks, replace(LINEAR_FLOAT, pixels="symmetric"), resolution=176)
    weights = Weights([network], seed=0)
    assert initialise(weights, network, folder / f"{name}.pth").missing == ()
    test = imagenet.load(samples(shared), crop=176, resize=201).test
    with torch.no_grad():
        logits = torch.cat([forward(network, weights, images)[0] for images, _ in test.in_batches(50)])
    right = logits.topk(5).indices == test.labels[:, None]
    top1, top5 = float(right[:, 0].double().mean()), float(right.any(1).double().mean())
    # three standard deviations of the share in 334 of 1,000
    assert abs(top1 - 0.597) < 3 * (0.597 * 0.403 / 334 * 0.666) ** 0.5
    assert abs(top5 - 0.833) < 3 * (0.833 * 0.167 / 334 * 0.666) ** 0.5


def test_the_samples_are_one_image_of_334_of_the_1000_classes(shared: Path) -> None:
    loaded = imagenet.load(samples(shared))
    assert len(loaded.classes) == 1000
    assert len(loaded.train) == 0
    assert loaded.test.labels.unique().numel() == len(loaded.test) == 334
    images, labels = loaded.test.batch(torch.tensor([0, 333]))
    assert images.shape == (2, 3, 224, 224)
    assert loaded.classes[labels[0]] == TENCH and int(labels[0]) == 0
    overfitted = imagenet.load(samples(shared), train="val", workers=2)
    assert torch.equal(overfitted.train.labels, loaded.test.labels)
    assert torch.equal(overfitted.train.batch(torch.tensor([0, 333]))[0], images)
