"""Folders of images: their labels, sizes and channels, and files that are no images."""

import numpy as np
import pytest
import tensorflow as tf

from flq.errors import DataError
from flq.learning.datasets import check_dataset, load_dataset


def pixels(number, shape=(6, 5, 3)):
    return np.random.RandomState(number).randint(0, 256, shape).astype(np.uint8)


def write(path, image, encode=tf.io.encode_png):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(encode(image).numpy())


@pytest.fixture
def folder(tmp_path):
    for label in ("cat", "dog"):
        for k in range(6):
            write(tmp_path / "pets" / label / f"{k}.png", pixels(k))
    (tmp_path / "pets" / "cat" / "notes.txt").write_text("no image")
    (tmp_path / "pets" / ".cache").mkdir()
    return tmp_path


def test_subfolders_are_labels_and_each_fifth_image_is_for_the_test(folder):
    data = load_dataset("images:pets", str(folder))
    assert data.classes == ("cat", "dog") and data.scale == 255.0
    assert data.y_train.tolist() == [0] * 5 + [1] * 5 and data.y_test.tolist() == [0, 1]
    assert (data.x_train[:5] == np.stack([pixels(k) for k in (0, 1, 2, 3, 5)])).all()
    assert (data.x_test[0] == pixels(4)).all() and data.x_train.dtype == np.uint8


def test_train_and_test_folders(folder):
    for part, number in (("train", 1), ("test", 2)):
        write(folder / "both" / part / "a" / "x.png", pixels(number, (4, 4, 1)))
    write(folder / "both" / "train" / "b" / "x.png", pixels(3, (4, 4, 1)))
    data = load_dataset("images:both", str(folder))
    assert data.x_train.shape == (2, 4, 4, 1) and (data.x_test[0] == pixels(2, (4, 4, 1))).all()
    data = load_dataset("images:both/train?test=both/test&classes=c,b,a", str(folder))
    assert data.num_classes == 3 and data.y_train.tolist() == [1, 2] and data.y_test.tolist() == [2]


def test_sizes_and_channels_are_made_equal_where_that_is_asked_for(folder):
    write(folder / "pets" / "dog" / "7.jpg", pixels(7, (12, 10, 1)), tf.io.encode_jpeg)
    with pytest.raises(
            DataError, match=r"7.jpg has another shape than .*0.png; expected 6 x 5 x 3; got "
            r"12 x 10 x 1; let FLQ make them equal: size=HEIGHTxWIDTH"):
        load_dataset("images:pets", str(folder))
    data = load_dataset("images:pets?size=6x5&channels=1", str(folder))
    assert data.x_train.shape[1:] == (6, 5, 1)
    half = load_dataset("images:pets?size=3x5&channels=3", str(folder)).x_train[0]
    rows = pixels(0).astype(float)
    assert np.abs(half - (rows[0::2] + rows[1::2]) / 2).max() <= 0.5, "the mean of its area"


def test_a_grey_image_among_coloured_ones(folder):
    write(folder / "pets" / "dog" / "7.png", pixels(7, (6, 5, 1)))
    with pytest.raises(DataError, match="equal: channels=3"):
        load_dataset("images:pets", str(folder))
    assert load_dataset("images:pets?channels=3", str(folder)).x_train.shape == (11, 6, 5, 3)


def cut_off_png():
    return tf.io.encode_png(pixels(0)).numpy()[:60]


def huge_png():
    data = bytearray(tf.io.encode_png(pixels(0)).numpy())
    data[16:24] = b"\x00\x01\x00\x00" * 2
    return bytes(data)


@pytest.mark.parametrize("content, said", [
    (b"", "cannot decode"), (b"GIF89a", "cannot decode"),
    (b"\xff\xd8\xff\xe0 cut off", "cannot decode"),
    (b"BM\x00", "cannot decode"), (cut_off_png, "cannot decode"),
    (huge_png, "has an impossible size; expected 1 to 67108864 pixels; got 65536 x 65536"),
])  # yapf: disable
def test_a_file_that_is_no_image_is_named(folder, content, said):
    (folder / "pets" / "dog" / "2.png").write_bytes(content() if callable(content) else content)
    with pytest.raises(DataError, match=said) as caught:
        load_dataset("images:pets", str(folder))
    assert "2.png" in str(caught.value) and "\n" not in str(caught.value)


@pytest.mark.parametrize("name, said", [
    ("images:pet", "cannot read .*pet; .*did you mean images:pets?"),
    ("images:pets/cat", "has no subfolder"),
    ("images:", "names no folder"),
    ("images:pets?size=6", "the option size cannot take this value"),
    ("images:pets?size=9999x5", "the option size cannot take this value"),
    ("images:pets?channels=2", "the option channels cannot take this value"),
    ("images:pets?classes=cat", "dog is the folder of no class; expected cat; got dog"),
    ("images:pets?classes=cat,dog,../others", "classes= cannot take this value; .* got ../others"),
    ("images:pets?classes=cat,dog,cat%2F..%2F..%2Fothers", "classes= cannot take this value"),
    ("images:pets?classes=cat,dog,/others", "classes= cannot take this value"),
    ("images:pets?classes=cat,dog,..", "classes= cannot take this value"),
    ("images:pets?classes=cat,dog,.", "classes= cannot take this value"),
    ("images:pets?label=x", "has an option that cannot be used"),
    ("images:pets/cat/0.png", "cannot read"),
])  # yapf: disable
def test_what_is_wrong_with_the_folder_is_noticed_without_reading_images(folder, name, said):
    with pytest.raises(DataError, match=said):
        check_dataset(name, str(folder))


def test_no_class_reaches_beyond_the_folder(folder):
    """A master names the classes, and the worker's owner granted the folder alone."""
    write(folder / "others" / "private.png", pixels(7))
    with pytest.raises(DataError, match="classes= cannot take this value"):
        load_dataset("images:pets?classes=cat,dog,../others", str(folder))


def test_a_folder_without_an_image_to_test_with(folder):
    for path in (folder / "pets").rglob("[3-9].png"):
        path.unlink()
    with pytest.raises(DataError, match="has no image to test with"):
        load_dataset("images:pets", str(folder))
