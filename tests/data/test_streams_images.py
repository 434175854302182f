"""Opening images: the embedded digits, idx files, arrays, Hugging Face data sets, and the errors a user meets."""

import gzip
import struct
import time
import tracemalloc
from dataclasses import replace
from pathlib import Path

import datasets
import numpy as np
import pytest
import torch
from PIL import Image

from commonweight import open_images, task_stream
from commonweight.base import IntegrityError, UsageError
from commonweight.data.images import SCENARIOS, Images, digits

MNIST = Path(__file__).parents[2].parent / "shared" / "data" / "mnist"


# digits


def test_the_digits_are_scikit_learns():
    sklearn = pytest.importorskip("sklearn.datasets").load_digits()
    images = digits()
    is_test = np.zeros(len(sklearn.target), dtype=bool)
    for digit in range(10):
        is_test[np.flatnonzero(sklearn.target == digit)[4::5]] = True
    assert np.array_equal(images.train[:, 0], sklearn.images[~is_test])
    assert np.array_equal(images.test[:, 0], sklearn.images[is_test])
    assert np.array_equal(images.train_labels, sklearn.target[~is_test])
    assert np.array_equal(images.test_labels, sklearn.target[is_test])


def test_the_digits_fill_the_unit_interval():
    rows = task_stream(open_images("digits"), "permuted")[0].train
    assert (float(rows.inputs.min()), float(rows.inputs.max())) == (0, 1)
    assert open_images("digits").digest == digits().digest


# idx


def write_idx(file, array):
    content = struct.pack(f">BBBB{array.ndim}I", 0, 0, 8, array.ndim, *array.shape) + array.astype(np.uint8).tobytes()
    file.write_bytes(gzip.compress(content) if file.suffix == ".gz" else content)


def idx_folder(folder, end="", dot="-"):
    folder.mkdir(exist_ok=True)
    draw = np.random.default_rng(0)
    for prefix, rows in (("train", 10), ("t10k", 6)):
        write_idx(folder / f"{prefix}-images{dot}idx3-ubyte{end}", draw.integers(0, 256, (rows, 4, 5)))
        write_idx(folder / f"{prefix}-labels{dot}idx1-ubyte{end}", np.arange(rows) % 3)
    return folder


def test_idx_files_packed_or_not(tmp_path):
    plain = open_images(idx_folder(tmp_path / "plain"))
    packed = open_images(str(idx_folder(tmp_path / "packed", ".gz", ".")))
    assert plain.shape == (1, 4, 5)
    assert plain.classes == ("0", "1", "2")
    assert (plain.name, packed.name) == ("plain", "packed")
    assert plain.digest == packed.digest
    assert plain.train.dtype == torch.uint8
    assert task_stream(plain, "partitioned", tasks=1)[0].test.labels.tolist() == [0, 1, 2, 0, 1, 2]


def damage_magic(content):
    return b"\x1f\x00\x08\x03" + content[4:]


DAMAGES = {
    "magic": (damage_magic, "starts with 1f 00 08 03; expected 00 00 08"),
    "floats": (lambda content: b"\x00\x00\x0d\x03" + content[4:], "starts with 00 00 0d 03"),
    "cut": (lambda content: content[:-1], "states 200 values, 199 came; it is damaged"),
    "longer": (lambda content: content + b"\x00", "states 200 values, 201 came"),
    "header": (lambda content: content[:9], "ends before its sizes"),
    "empty": (lambda content: b"", "starts with nothing"),
    "huge": (lambda content: content[:4] + b"\xff" * 12 + content[16:], f"states {(2**32 - 1) ** 3} values, 200 came"),
    "labels": (lambda content: b"\x00\x00\x08\x01\x00\x00\x00\x02ab", r"states the sizes \[2\]; expected 3"),
    "no rows": (
        lambda content: content[:4] + b"\x00" * 12,
        r"states the sizes \[0, 0, 0\]; expected 3, none of them 0",
    ),
    "fewer": (
        lambda content: struct.pack(">BBBB3I", 0, 0, 8, 3, 9, 4, 5) + content[16:196],
        "has 9 images and .*train-labels-idx1-ubyte.* 10 labels",
    ),
}


@pytest.mark.parametrize("end", ["", ".gz"])
@pytest.mark.parametrize("damage", DAMAGES)
def test_damaged_idx_files(tmp_path, damage, end):
    folder = idx_folder(tmp_path / "data", end)
    change, message = DAMAGES[damage]
    file = folder / f"train-images-idx3-ubyte{end}"
    content = change(gzip.decompress(file.read_bytes()) if end else file.read_bytes())
    file.write_bytes(gzip.compress(content) if end else content)
    with pytest.raises(IntegrityError, match=message) as caught:
        open_images(folder)
    assert str(file) in str(caught.value)


@pytest.mark.parametrize("content", [b"no gzip", b"", gzip.compress(b"0" * 1000, mtime=0)[:-20]])
def test_a_packed_file_that_cannot_be_unpacked(tmp_path, content):
    folder = idx_folder(tmp_path / "data", ".gz")
    (folder / "t10k-labels-idx1-ubyte.gz").write_bytes(content)
    with pytest.raises(IntegrityError, match="t10k-labels"):
        open_images(folder)


def test_a_packed_file_with_one_wrong_byte(tmp_path):
    folder = idx_folder(tmp_path / "data", ".gz")
    file = folder / "train-images-idx3-ubyte.gz"
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 0x40
    file.write_bytes(content)
    with pytest.raises(IntegrityError, match="train-images"):
        open_images(folder)


def test_a_missing_file_and_a_folder_above(tmp_path):
    folder = idx_folder(tmp_path / "MNIST")
    (folder / "t10k-labels-idx1-ubyte").unlink()
    with pytest.raises(UsageError, match="lacks t10k-labels-idx1-ubyte"):
        open_images(folder)
    with pytest.raises(UsageError, match=r"has no idx files itself; did you mean '.*MNIST'"):
        open_images(tmp_path)


@pytest.mark.skipif(not MNIST.is_dir(), reason="no MNIST in ../shared/data")
def test_mnist():
    images = open_images(MNIST)
    assert (len(images.train), len(images.test), images.shape) == (60000, 10000, (1, 28, 28))
    assert torch.bincount(images.train_labels).tolist() == [
        *(5923, 6742, 5958, 6131, 5842, 5421, 5918, 6265, 5851, 5949),
    ]
    mean, deviation = images.statistics
    assert (round(mean[0], 4), round(deviation[0], 4)) == (0.1307, 0.3081)
    for scenario in SCENARIOS:
        start = time.process_time()
        task = task_stream(images, scenario, normalise="standard", flatten=True)[1]
        assert task.train.inputs.shape == (len(task.train), 784)
        assert time.process_time() - start < 3  # about half a second on one quiet core
    assert [len(task.train) for task in task_stream(images, "partitioned")] == [12665, 12089, 11263, 12183, 11800]


# arrays and .npz


def arrays(shape=(4, 5), rows=(9, 6), dtype=np.uint8):
    draw = np.random.default_rng(1)
    pixels = [draw.integers(0, 256, (n, *shape)).astype(dtype) for n in rows]
    return [pixels[0], np.arange(rows[0]) % 3, pixels[1], np.arange(rows[1]) % 3]


@pytest.mark.parametrize(
    ("shape", "found"),
    [
        ((4, 5), (1, 4, 5)),
        ((4, 5, 3), (3, 4, 5)),
        ((3, 4, 5), (3, 4, 5)),
        ((1, 9, 9), (1, 9, 9)),
        ((9, 9, 1), (1, 9, 9)),
    ],
)
def test_arrays_of_any_layout(shape, found):
    given = arrays(shape)
    images = Images.of(*given)
    assert images.shape == found
    moved = np.moveaxis(given[0].reshape(9, *shape), -1, 1) if shape[-1] in {1, 3} and len(shape) == 3 else given[0]
    assert np.array_equal(images.train, moved.reshape(9, *found))


@pytest.mark.parametrize(
    "names",
    [("train_images", "train_labels", "test_images", "test_labels"), ("x_train", "y_train", "x_test", "y_test")],
)
def test_npz_files(tmp_path, names):
    given = arrays()
    file = tmp_path / "mine.npz"
    np.savez_compressed(file, **dict(zip(names, given, strict=True)), more=np.array([{}]))
    images = open_images(file)
    assert images.name == "mine"
    assert images.digest == Images.of(*given).digest
    labels = [given[1][:, None], given[3].astype(np.uint8)[:, None]]
    assert Images.of(given[0], labels[0], given[2], labels[1]).digest == images.digest


def test_an_npz_file_runs_nothing(tmp_path):
    class Bomb:
        def __reduce__(self):
            return exec, ("raise SystemExit('run')",)

    file = tmp_path / "bomb.npz"
    names = ("train_images", "train_labels", "test_images", "test_labels")
    np.savez(file, **dict(zip(names, [*arrays()[:3], np.array([Bomb()], dtype=object)], strict=True)))
    with pytest.raises(IntegrityError, match=r"cannot be read as a .npz file of plain arrays"):
        open_images(file)


def test_npz_files_that_are_none(tmp_path):
    file = tmp_path / "bad.npz"
    np.savez(file, pixels=np.zeros(3))
    with pytest.raises(UsageError, match="has the arrays pixels; expected train_images"):
        open_images(file)
    whole = file.read_bytes()
    for content in (b"", b"no archive", whole[: len(whole) // 2]):
        file.write_bytes(content)
        with pytest.raises(IntegrityError, match=r"cannot be read as a .npz file"):
            open_images(file)


def changed(place, value):
    given = arrays()
    given[place] = value
    return given


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (changed(0, np.zeros((9, 4))), r"arrays \(train\) has images of shape \[9, 4\]; expected \[n, height, width\]"),
        (arrays((3, 5, 3)), "it cannot be told which dimension holds the channels"),
        (arrays((5, 5, 5)), "it cannot be told which dimension holds the channels"),
        (arrays(dtype=np.int32), "has images of torch.int32; expected uint8, or float32 from 0 to 1"),
        (arrays(dtype=np.float64), "has values from 1 to 255; expected 0 to 1: scale the images"),
        (changed(0, np.full((9, 4, 5), np.nan)), "has values from nan to nan; expected 0 to 1"),
        (changed(0, np.zeros((9, 4, 5), dtype=object)), "has an array of object; expected numbers"),
        (
            changed(2, np.zeros((6, 5, 5), dtype=np.uint8)),
            r"training images \[1, 4, 5\] of torch.uint8 and test images \[1, 5, 5\]",
        ),
        (changed(2, np.zeros((6, 4, 5))), "test images .* of torch.float32; bring both parts"),
        (changed(0, np.zeros((0, 4, 5), dtype=np.uint8)), "none of them 0"),
        (changed(1, np.arange(8)), r"has 9 images and labels of torch.int64 \[8\]; expected one int64 per image"),
        (changed(1, np.arange(9) / 2), "has labels of torch.float64; expected whole numbers from 0"),
        (changed(1, np.arange(9) - 1), "labels from -1 to 7; expected 0 to 7"),
        (changed(3, np.arange(6)), r"\(test\) has labels from 0 to 5; expected 0 to 2"),
        (changed(1, np.zeros(9, dtype=int)), "needs at least two classes, got 1"),
    ],
)
def test_arrays_that_are_no_images(given, message):
    with pytest.raises(UsageError, match=message):
        Images.of(*given)


# labels with gaps


GAPS = {
    "from 1": [1, 2, 3],
    "a hole": [0, 1, 3],
    "apart": [3, 7, 9],
    "huge": [5, 10**12, 10**12 + 1],
    "turned round": [9, 0, 4],
}


def of_arrays(folder, names):
    del folder
    given = arrays()
    return Images.of(given[0], np.take(names, given[1]), given[2], torch.tensor(names)[given[3]])


def of_npz(folder, names):
    given = arrays()
    labels = [np.take(names, given[place]) for place in (1, 3)]
    np.savez(folder / "x.npz", x_train=given[0], y_train=labels[0], x_test=given[2], y_test=labels[1])
    return open_images(folder / "x.npz")


def of_idx(folder, names):
    idx_folder(folder)
    for prefix, rows in (("train", 10), ("t10k", 6)):
        write_idx(folder / f"{prefix}-labels-idx1-ubyte", np.take(names, np.arange(rows) % 3))
    return open_images(folder)


def of_numbers(folder, names):
    pictures = [picture(each) for each in grey(6)]
    values = np.tile(names, 2).tolist()
    labels = {"train": values, "test": values}
    return open_images(saved(folder / "set", pictures, pictures, labels=labels, kind=datasets.Value("int64")))


@pytest.mark.parametrize(
    ("opened", "names"),
    [
        pytest.param(opened, names, id=f"{opened.__name__}, {gap}")
        for opened in (of_arrays, of_npz, of_idx, of_numbers)
        for gap, names in GAPS.items()
        if gap != "huge" or opened in {of_arrays, of_npz}  # idx files hold bytes
    ],
)
def test_labels_with_gaps_are_counted_anew_and_keep_their_names(tmp_path, opened, names):
    in_order = [str(name) for name in sorted(names)]
    with pytest.warns(UserWarning, match=rf"classes {', '.join(in_order)} alone: these 3 classes are counted from 0"):
        images = opened(tmp_path, names)
    assert images.classes == tuple(in_order)
    for labels in (images.train_labels, images.test_labels):
        assert [int(images.classes[label]) for label in labels] == (names * len(labels))[: len(labels)]
    stream = task_stream(images, "partitioned", tasks=1)
    assert stream.outputs == 3
    with pytest.raises(UsageError, match="3 classes in 2 tasks"):
        task_stream(images, "partitioned", tasks=2)


def test_named_classes_without_training_images_are_left_out(tmp_path):
    pictures = [picture(each) for each in grey(4)]
    kind = datasets.ClassLabel(names=["none", "cat", "dog", "horse", "ox"])
    values = {"train": [1, 3, 4, 1], "test": [4, 1, 3, 4]}
    with pytest.warns(UserWarning, match="classes cat, horse, ox alone: these 3 classes"):
        images = open_images(saved(tmp_path / "pets", pictures, pictures, labels=values, kind=kind))
    assert images.classes == ("cat", "horse", "ox")
    assert images.train_labels.tolist() == [0, 1, 2, 0]
    assert images.test_labels.tolist() == [2, 0, 1, 2]
    values["test"][0] = 2
    with pytest.raises(UsageError, match=r"pets \(test\) has labels that no training image has, such as 2"):
        open_images(saved(tmp_path / "again" / "pets", pictures, pictures, labels=values, kind=kind))


def test_labels_without_gaps_are_left_as_they_are():
    given = arrays()
    images = Images.of(*given)
    assert (images.classes, images.train_labels.tolist()) == (("0", "1", "2"), given[1].tolist())
    with pytest.raises(UsageError, match=r"arrays \(test\) has labels that no training image has, such as 4"):
        Images.of(given[0], given[1] * 3, given[2], given[3] * 4)


@pytest.mark.parametrize(
    ("labels", "classes", "empty"),
    [([1, 2, 3], "abcd", "class a"), ([0, 1, 2], "abcde", "classes d, e"), ([0, 2, 0], "abc", "class b")],
)
def test_classes_that_are_given_must_all_have_images(labels, classes, empty):
    given = arrays()
    with pytest.raises(UsageError, match=rf"arrays has no training image of {empty}; leave such classes out"):
        Images.of(given[0], np.take(labels, given[1]), given[2], np.take(labels, given[3]), classes=classes)
    names = tuple(map(str, range(40)))
    pixels = torch.zeros(2, 1, 2, 2)
    with pytest.raises(UsageError, match=r"no training image of classes 2, 3, .*, 13 and 26 more"):
        Images(pixels, torch.tensor([0, 1]), pixels, torch.tensor([0, 1]), names, "few")


def test_a_byte_above_the_brightest():
    with pytest.raises(UsageError, match="expected 0 to 16: give brightest"):
        Images.of(*arrays(), brightest=16)


def test_the_digest_tells_data_apart():
    given = arrays()
    digests = {Images.of(*given).digest, Images.of(*given, brightest=255, classes="abc").digest}
    for place in range(4):
        other = [array.copy() for array in given]
        other[place][0] = (other[place][0] + 1) % 3
        digests.add(Images.of(*other).digest)
    digests.add(Images.of(given[0].reshape(9, 5, 4), given[1], given[2].reshape(6, 5, 4), given[3]).digest)
    assert len(digests) == 7
    assert replace(Images.of(*given), name="other").digest == Images.of(*given).digest


# Hugging Face


def picture(array, mode=None):
    image = Image.fromarray(array)
    return image if mode is None else image.convert(mode)


def saved(folder, train, test, label="label", labels=None, kind=None):
    parts = {}
    for name, pictures in (("train", train), ("test", test)):
        values = labels[name] if labels else [row % 2 for row in range(len(pictures))]
        rows = datasets.Dataset.from_dict(
            {"image": pictures, label: values},
            features=datasets.Features({
                "image": datasets.Image(),
                label: kind or datasets.ClassLabel(names=["cat", "dog"]),
            }),
        )
        parts[name] = rows
    datasets.DatasetDict(parts).save_to_disk(str(folder))
    return folder


def grey(rows, shape=(4, 5)):
    return list(np.random.default_rng(2).integers(0, 256, (rows, *shape), dtype=np.uint8))


def test_a_saved_data_set(tmp_path):
    train, test = grey(6), grey(4)
    images = open_images(saved(tmp_path / "pets", [picture(a) for a in train], [picture(a) for a in test]))
    assert (images.name, images.classes, images.shape) == ("pets", ("cat", "dog"), (1, 4, 5))
    assert np.array_equal(images.train[:, 0], train)
    assert images.test_labels.tolist() == [0, 1, 0, 1]


def test_grey_and_colour_together(tmp_path):
    train, test = grey(3, (4, 5, 3)), grey(2)
    images = open_images(saved(tmp_path / "mixed", [picture(a) for a in train], [picture(a) for a in test]))
    assert images.shape == (3, 4, 5)
    assert np.array_equal(images.train, np.moveaxis(np.stack(train), -1, 1))
    assert np.array_equal(images.test, np.stack([test] * 3, axis=1))


@pytest.mark.parametrize(
    ("kind", "values", "classes"),
    [("string", ["b", "a", "b"], ("a", "b")), ("int64", [2, 0, 1], ("0", "1", "2"))],
)
def test_labels_that_are_names_or_numbers(tmp_path, kind, values, classes):
    pictures = [picture(a) for a in grey(3)]
    folder = saved(
        tmp_path / "x", pictures, pictures, "kind", {"train": values, "test": values}, kind=datasets.Value(kind)
    )
    with pytest.raises(UsageError, match="has neither 'label' nor 'labels'; name the column with label_column"):
        open_images(folder)
    images = open_images(folder, label_column="kind", image_column="image", test_split="test")
    assert images.classes == classes
    assert images.train_labels.tolist() == ([1, 0, 1] if kind == "string" else values)


def test_folders_of_image_files(tmp_path, monkeypatch):
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    arrays_of = {}
    for part in ("train", "test"):
        for kind in ("cat", "dog"):
            folder = tmp_path / "pets" / part / kind
            folder.mkdir(parents=True)
            for number, array in enumerate(grey(2)):
                array = array if kind == "cat" else 255 - array
                picture(array).save(folder / f"{number}.png")
                arrays_of[part, kind, number] = array
    images = open_images(tmp_path / "pets")
    assert images.classes == ("cat", "dog")
    for part in ("train", "test"):
        pixels, labels = getattr(images, part), getattr(images, f"{part}_labels")
        assert labels.tolist() == [0, 0, 1, 1]
        for row, (kind, number) in enumerate((("cat", 0), ("cat", 1), ("dog", 0), ("dog", 1))):
            assert np.array_equal(pixels[row, 0], arrays_of[part, kind, number])


def test_a_folder_that_holds_no_images(tmp_path, monkeypatch):
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    (tmp_path / "empty").mkdir()
    with pytest.raises(UsageError, match="has neither idx files nor a saved data set"):
        open_images(tmp_path / "empty")


def test_saved_data_sets_that_cannot_be_used(tmp_path):
    four = [picture(a) for a in grey(4)]
    with pytest.raises(UsageError, match=r"row 1 of sizes \(train\) has 6 x 6 pixels, the first row 4 x 5"):
        open_images(saved(tmp_path / "sizes", [four[0], picture(grey(1, (6, 6))[0])], four))
    deep = picture(np.zeros((4, 5), dtype=np.uint16))
    with pytest.raises(UsageError, match=r"row 0 of deep \(test\) has an image of mode I;16"):
        open_images(saved(tmp_path / "deep", four, [deep]))
    with pytest.raises(UsageError, match=r"row 1 of gap \(train\) has no image"):
        open_images(saved(tmp_path / "gap", [four[0], None], four))
    with pytest.raises(UsageError, match=r"row 0 of broken \(train\) has an image that cannot be read"):
        open_images(saved(tmp_path / "broken", [{"bytes": b"no image", "path": None}], four))
    good = saved(tmp_path / "good", four, four)
    with pytest.raises(UsageError, match="has no split 'validation'; there are 'train', 'test'"):
        open_images(good, test_split="validation")
    with pytest.raises(UsageError, match="has no column of images 'picture'; there are 'image'"):
        open_images(good, image_column="picture")
    with pytest.raises(UsageError, match="label_column 'kind' is no column of"):
        open_images(good, label_column="kind")
    datasets.load_from_disk(str(good))["train"].save_to_disk(str(tmp_path / "single"))
    with pytest.raises(UsageError, match="holds a single split; expected a DatasetDict with train and test"):
        open_images(tmp_path / "single")
    names = {"train": ["a", "b", "a", "b"], "test": ["a", "b", "c", "a"]}
    with pytest.raises(UsageError, match="row 2 of new has the label 'c' in column 'label'; expected one of the 2"):
        open_images(saved(tmp_path / "new", four, four, labels=names, kind=datasets.Value("string")))
    hidden = {"train": [0, 1, 0, 1], "test": [-1] * 4}
    with pytest.raises(UsageError, match="row 0 of hidden has the label -1"):
        open_images(saved(tmp_path / "hidden", four, four, labels=hidden))
    (good / "dataset_dict.json").write_text("{")
    with pytest.raises(IntegrityError, match=r"the saved data set in .*good cannot be read"):
        open_images(good)


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("no/such/folder", "no images in 'no/such/folder'"),
        ("./mnist", "no images in './mnist'"),
        ("pixels.npy", "no images in 'pixels.npy'"),
        ("diggits", "did you mean 'digits'"),
        ("a b", "neither an existing file or folder nor an id"),
        ("org/none", "could not be loaded"),
    ],
)
def test_names_of_nothing(spec, message, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UsageError, match=message):
        open_images(spec)


def test_a_name_that_is_nearly_right(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    idx_folder(tmp_path / "mnist")
    with pytest.raises(UsageError, match="did you mean 'mnist'"):
        open_images("mnits")
    with pytest.raises(UsageError, match="mnist has no columns and no named splits; leave label_column out"):
        open_images("mnist", label_column="label")


def test_a_packed_file_is_read_no_further_than_it_states(tmp_path):
    folder = idx_folder(tmp_path / "data", ".gz")
    file = folder / "train-images-idx3-ubyte.gz"
    file.write_bytes(gzip.compress(gzip.decompress(file.read_bytes()) + bytes(2**28)))
    tracemalloc.start()
    try:
        with pytest.raises(IntegrityError, match="states 200 values, 201 came, or more; it is damaged"):
            open_images(folder)
        assert tracemalloc.get_traced_memory()[1] < 2**24
    finally:
        tracemalloc.stop()
