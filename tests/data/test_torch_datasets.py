"""Images from a pair of PyTorch data sets are those that the data sets give."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image
from torch.utils.data import Dataset, IterableDataset, Subset, TensorDataset

from commonweight import open_images, task_stream
from commonweight.base import UsageError


class Pictures(Dataset):
    """Rows as torchvision gives them without a transform: PIL images and whole numbers; ``classes`` names these."""

    classes = ("cat", "dog", "owl")

    def __init__(self, pixels, labels, transform=None):
        self.pixels, self.labels, self.transform = pixels, labels, transform

    def __len__(self):
        return len(self.pixels)

    def __getitem__(self, place):
        image = Image.fromarray(self.pixels[place])
        return image if self.transform is None else self.transform(image), int(self.labels[place])


class Streamed(IterableDataset):
    def __init__(self, rows):
        self.rows = rows

    def __iter__(self):
        return (self.rows[place] for place in range(len(self.rows)))


def listed(rows):
    class Listed(Dataset):
        def __len__(self):
            return len(rows)

        def __getitem__(self, place):
            return rows[place]

    return Listed()


LABELS = np.array([0, 1, 2, 1, 0, 2])


def grey():
    return np.random.default_rng(0).integers(0, 256, (6, 5, 7), dtype=np.uint8)


def colour():
    return np.random.default_rng(1).integers(0, 256, (6, 5, 7, 3), dtype=np.uint8)


def test_pil_images_keep_their_bytes_and_the_names_of_their_classes():
    images = open_images((Pictures(grey(), LABELS), Pictures(grey()[:3], LABELS[:3])))
    assert torch.equal(images.train, torch.from_numpy(grey())[:, None])
    assert images.train_labels.tolist() == LABELS.tolist()
    assert images.classes == Pictures.classes
    assert (len(images.test), images.name, images.shape) == (3, "Pictures", (1, 5, 7))


def test_images_in_colour_are_channels_first():
    images = open_images([Pictures(colour(), LABELS), Pictures(colour(), LABELS)])
    assert torch.equal(images.train, torch.from_numpy(colour()).permute(0, 3, 1, 2))


def test_tensors_of_a_transform_are_taken_as_they_come():
    def to_tensor(image):
        return torch.from_numpy(np.array(image)).permute(2, 0, 1).float() / 255

    images = open_images((Pictures(colour(), LABELS, transform=to_tensor),) * 2)
    assert images.train.dtype == torch.float32
    assert torch.equal(images.train, torch.from_numpy(colour()).permute(0, 3, 1, 2).float() / 255)


def test_other_kinds_of_data_sets():
    pixels, labels = torch.rand(6, 1, 5, 7), torch.from_numpy(LABELS)
    rows = TensorDataset(pixels, labels)
    images = open_images((rows, Subset(rows, [5, 1])))
    assert torch.equal(images.test, pixels[[5, 1]])
    assert images.test_labels.tolist() == [2, 1]
    assert images.classes == ("0", "1", "2")
    again = open_images((Streamed(rows), Streamed(rows)))
    assert torch.equal(again.train, pixels)
    with pytest.warns(UserWarning, match="classes cat, owl alone: these 2 classes are counted from 0"):
        images = open_images((Pictures(grey()[[0, 2]], LABELS[[0, 2]]),) * 2)
    assert images.train_labels.tolist() == [0, 1]


def test_a_palette_becomes_its_colours():
    red = Image.new("P", (2, 2))
    red.putpalette([255, 0, 0] * 256)
    rows = listed([(red, 0), (red, 1)])
    assert open_images((rows, rows)).train[0, :, 0, 0].tolist() == [255, 0, 0]


def test_a_stream_can_be_made_of_them():
    rows = Pictures(grey(), LABELS)
    stream = task_stream(open_images((rows, rows)), "permuted", tasks=2)
    assert stream[0].train.inputs.shape == (6, 1, 5, 7)


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        (TensorDataset(torch.rand(2, 1, 3, 3)), r"row 0 of TensorDataset \(train\) is a tuple; expected a pair"),
        (TensorDataset(torch.rand(2, 1, 3, 3), torch.tensor([0.0, 1.0])), r"has the label 0\.0; expected a whole"),
        (
            TensorDataset(torch.rand(2, 5, 3, 3), torch.tensor([0, 1])),
            r"has a Tensor of shape \[5, 3, 3\] as image; expec",
        ),
        ([("no image", 0)], r"row 0 of Listed \(train\) has a str as image"),
        ([(np.zeros((1, 5, 5)), 0)], r"has a ndarray of shape \[1, 5, 5\] as image"),
        ([(Image.new("I", (3, 3)), 0)], "has an image of mode I; expected one of 8 bits"),
        ([(Image.new("RGB", (3, 3)), True)], "has the label True; expected a whole"),
        (TensorDataset(torch.rand(0, 1, 3, 3), torch.zeros(0, dtype=torch.int64)), "has no rows"),
        (TensorDataset(2 * torch.rand(9, 1, 3, 3) - 1, torch.arange(9) % 2), "expected 0 to 1: scale the images"),
    ],
)
def test_what_is_no_image_with_a_label_is_refused(rows, message):
    if isinstance(rows, list):
        rows = listed(rows)
    with pytest.raises(UsageError, match=message):
        open_images((rows, rows))


def test_images_of_several_sizes_and_columns_are_refused():
    class Growing(Dataset):
        def __len__(self):
            return 2

        def __getitem__(self, place):
            return torch.zeros(1, 3 + place, 3), place

    with pytest.raises(
        UsageError, match=r"row 1 of Growing \(train\) has an image of shape \[1, 4, 3\], the first row"
    ):
        open_images((Growing(), Growing()))
    rows = Pictures(grey(), LABELS)
    with pytest.raises(UsageError, match="a pair of data sets has no columns and no named splits; leave label_column"):
        open_images((rows, rows), label_column="y")
    with pytest.raises(UsageError, match="or a pair of PyTorch data sets, got tuple"):
        open_images((rows, rows, rows))
