"""The drawn sets of ConRec: sizes, classes, geometry, addresses; and splits joined."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import ndimage

from zoo.data.addresses import open_dataset
from zoo.errors import DataError, UnknownNameError


def pixels(dataset) -> np.ndarray:
    """`(N, H, W)` in 0..1."""
    return np.stack([np.asarray(dataset.sample(i))[..., 0] for i in range(len(dataset))]) / 255


@pytest.fixture(scope="module")
def rectangles():
    return open_dataset("synthetic:rectangle-triangle?n=120", "train")


@pytest.fixture(scope="module")
def circles():
    return open_dataset("synthetic:circle-square?n=120", "train")


@pytest.mark.parametrize(
    ("name", "train", "test", "classes"), [("rectangle-triangle", 1000, 500, 4), ("circle-square", 600, 399, 3)]
)
def test_published_sizes(name, train, test, classes):
    found = [open_dataset(f"synthetic:{name}?size=16", split) for split in ("train", "test")]
    assert [len(d) for d in found] == [train, test]
    assert all(len(d.class_names) == classes and np.bincount(d.labels).min() == len(d) // classes for d in found)
    assert found[0].fingerprint != found[1].fingerprint
    assert found[0].fingerprint == open_dataset(f"synthetic:{name}?size=16", "train").fingerprint
    assert open_dataset(f"synthetic:{name}?n=12", "train").sample(0).size == (128, 128)


def test_white_on_black_and_whole(rectangles, circles):
    for dataset in (rectangles, circles):
        x = pixels(dataset)
        assert ((x < 0.02) | (x > 0.98)).mean() > 0.95 and 0.01 < x.mean() < 0.45
        border = np.concatenate([x[:, 0], x[:, -1], x[:, :, 0], x[:, :, -1]], axis=1)
        assert border.max() < 0.6, "nothing is cut off"


def test_a_rectangle_has_one_hole_and_rounding_takes_its_corners(rectangles):
    x = pixels(rectangles) > 0.5
    missing = []
    for image in x:
        _, parts = ndimage.label(~image, structure=np.ones((3, 3)))
        assert parts == 2, "outside and the hole"
        filled = ndimage.binary_fill_holes(image)
        points = np.argwhere(filled).astype(float)
        # How far the farthest corner reaches beyond what the second moments of a full rectangle say.
        centred = points - points.mean(0)
        axes = np.linalg.eigvalsh(np.cov(centred.T))
        missing.append(np.hypot(*np.sqrt(3 * axes)) / np.hypot(centred[:, 0], centred[:, 1]).max())
    missing = np.array(missing)
    sharp = rectangles.labels >= 2
    assert abs(missing[sharp] - 1).max() < 0.05 and missing[~sharp].min() > missing[sharp].max()


def test_both_holes_have_the_same_area_but_not_the_same_shape(rectangles):
    x = pixels(rectangles) > 0.5
    holes = [ndimage.binary_fill_holes(image) & ~image for image in x]
    filled = np.array([image.sum() + hole.sum() for image, hole in zip(x, holes, strict=True)])
    share = np.array([hole.sum() for hole in holes]) / filled
    right = rectangles.labels % 2 == 1
    assert abs(share[right].mean() / share[~right].mean() - 1) < 0.15
    # An equilateral triangle spreads alike in all directions, a right one does not.
    spread = []
    for hole in holes:
        axes = np.linalg.eigvalsh(np.cov(np.argwhere(hole).T))
        spread.append(axes[1] / axes[0])
    spread = np.array(spread)
    assert spread[~right].max() < 1.35 < spread[right].min()


def test_two_objects_apart_and_as_many_circles_as_the_class_says(circles):
    for image, label in zip(pixels(circles), circles.labels, strict=True):
        parts, count = ndimage.label(image > 0.5)
        assert count == 2
        distance = ndimage.distance_transform_edt(parts != 1)[parts == 2].min()
        assert distance >= 9
        round_ones = 0
        for k in (1, 2):
            points = np.argwhere(parts == k)
            farthest = np.hypot(*(points - points.mean(0)).T).max()
            round_ones += len(points) / (np.pi * farthest**2) > 0.82  # a square fills 2 / pi = 0.64 of its circle
            assert 128 / 8 * 0.9 <= np.sqrt(len(points)) * (1.13 if round_ones else 1) <= 128 / 3 * 1.15
        assert round_ones == 2 - label


def test_addresses_are_checked():
    with pytest.raises(UnknownNameError, match="did you mean 'synthetic:circle-square'"):
        open_dataset("synthetic:circle-squares", "train")
    with pytest.raises(UnknownNameError, match="did you mean 'size'"):
        open_dataset("synthetic:circle-square?sise=3", "train")
    with pytest.raises(DataError, match="must be a whole number in 16"):
        open_dataset("synthetic:rectangle-triangle?size=8", "train")


def test_splits_can_be_joined():
    address = "synthetic:circle-square?n=30&size=16"
    train, test = (open_dataset(address, split) for split in ("train", "test"))
    both = open_dataset(address, "train+test")
    assert (len(both), both.split) == (len(train) + len(test), "train+test") and len(set(both.keys)) == len(both)
    assert np.array_equal(both.labels, np.concatenate([train.labels, test.labels]))
    for index, expected in ((0, train.sample(0)), (30, test.sample(0)), (-1, test.sample(len(test) - 1))):
        assert np.array_equal(both.sample(index), expected)
    assert both.fingerprint not in (train.fingerprint, test.fingerprint)
    assert both.subset(np.arange(3)).labels.tolist() == [0, 1, 2]
    with pytest.raises(UnknownNameError, match="'validation'"):
        open_dataset(address, "train+validation")
    with pytest.raises(DataError, match="name one twice"):
        open_dataset(address, "train+train")
