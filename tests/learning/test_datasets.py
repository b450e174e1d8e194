"""Loading: what is accepted, where files are looked for, and one clear line for every way of being
wrong.
"""

import gzip
import os
import struct
import subprocess
import sys
import warnings
import zipfile

import numpy as np
import pytest

from flq.errors import DataError
from flq.learning.datasets import DATASETS, check_dataset, load_dataset
from flq.learning.datasets.dataset import ARRAYS, MAX_CLASSES, from_arrays, read_npz

MNIST_DIR = os.environ.get("FLQ_DATA_DIR", "")
needs_mnist = pytest.mark.skipif(not os.path.exists(os.path.join(MNIST_DIR, "mnist.npz")),
                                 reason="FLQ_DATA_DIR has no mnist.npz")
needs_fmnist = pytest.mark.skipif(not os.path.exists(os.path.join(MNIST_DIR, "fashion_mnist.npz")),
                                  reason="FLQ_DATA_DIR has no fashion_mnist.npz")


def arrays(**changed):
    random = np.random.RandomState(0)
    result = {
        "x_train": random.randint(0, 256,
                                  (20, 6, 6)).astype(np.uint8), "y_train": np.arange(20) % 4,
        "x_test": random.randint(0, 256, (8, 6, 6)).astype(np.uint8), "y_test": np.arange(8) % 4
    }
    result.update(changed)
    return {name: value for name, value in result.items() if value is not None}


@pytest.fixture
def saved(tmp_path):
    path = tmp_path / "own.npz"
    np.savez_compressed(str(path), **arrays())
    return path


def test_digits_are_shipped():
    dataset = load_dataset("digits")
    assert dataset.x_train.shape == (1437, 8, 8, 1) and dataset.x_test.shape == (360, 8, 8, 1)
    assert dataset.x_train.dtype == np.uint8 and dataset.x_train.max() == dataset.scale == 16
    assert dataset.y_train.dtype == np.int32 and dataset.num_classes == 10
    assert dataset.clients_train is None


@needs_mnist
def test_mnist_from_the_data_folder():
    dataset = load_dataset("mnist", MNIST_DIR)
    assert dataset.x_train.shape == (
        60000, 28, 28, 1) and dataset.x_train.dtype == np.uint8 and dataset.scale == 255
    assert np.bincount(
        dataset.y_test).tolist() == [980, 1135, 1032, 1010, 982, 892, 958, 1028, 974, 1009]


@needs_mnist
def test_mnist_from_the_keras_cache_whatever_its_zip_looks_like(tmp_path, monkeypatch):
    (tmp_path / "datasets").mkdir()
    os.symlink(os.path.join(os.path.abspath(MNIST_DIR), "mnist.npz"),
               str(tmp_path / "datasets" / "mnist.npz"))
    monkeypatch.delenv("FLQ_DATA_DIR")
    monkeypatch.setenv("KERAS_HOME", str(tmp_path))
    assert len(load_dataset("mnist").y_train) == 60000


@needs_mnist
def test_one_changed_pixel_of_mnist_is_noticed(tmp_path):
    changed = read_npz(os.path.join(MNIST_DIR, "mnist.npz"))
    changed["x_train"][123, 14, 14] ^= 1
    np.savez(str(tmp_path / "mnist.npz"), **changed)
    with pytest.raises(
            DataError, match=
            r"mnist.npz is not the published data set; expected SHA-256 of its arrays \w{64}; got "
            r"\w{64}"
    ):
        load_dataset("mnist", str(tmp_path))


@needs_fmnist
def test_fashion_mnist_from_the_data_folder_and_from_the_keras_cache(tmp_path, monkeypatch):
    folder = tmp_path / "datasets" / "fashion-mnist"
    folder.mkdir(parents=True)
    stored = read_npz(os.path.join(MNIST_DIR, "fashion_mnist.npz"))
    for name, file_name in (("x_train", "train-images-idx3-ubyte.gz"),
                            ("y_train", "train-labels-idx1-ubyte.gz"),
                            ("x_test", "t10k-images-idx3-ubyte.gz"), ("y_test",
                                                                      "t10k-labels-idx1-ubyte.gz")):
        array = stored[name]
        with gzip.open(str(folder / file_name), "wb", compresslevel=1) as file:
            file.write(
                struct.pack(f">HBB{array.ndim}I", 0, 8, array.ndim, *array.shape) + array.tobytes())
    from_folder = load_dataset("fmnist", MNIST_DIR)
    monkeypatch.delenv("FLQ_DATA_DIR")
    monkeypatch.setenv("KERAS_HOME", str(tmp_path))
    from_cache = load_dataset("fmnist")
    assert from_folder.x_train.shape == (60000, 28, 28, 1)
    np.testing.assert_array_equal(from_folder.x_train, from_cache.x_train)
    np.testing.assert_array_equal(from_folder.y_test, from_cache.y_test)


@pytest.mark.parametrize("name, file_name", [("mnist", "mnist.npz"), ("fmnist", "fmnist.npz"),
                                             ("cifar10", "cifar10.npz")])
def test_a_set_that_is_nowhere_says_which_file_to_put_where(name, file_name, tmp_path):
    nowhere = "http://127.0.0.1:9"  # a proxy that refuses every connection
    environment = dict(os.environ, HOME=str(tmp_path), KERAS_HOME=str(tmp_path),
                       FLQ_DATA_DIR=str(tmp_path), http_proxy=nowhere, https_proxy=nowhere,
                       no_proxy="")
    program = ("from flq.errors import DataError\nfrom flq.learning.datasets import load_dataset\n"
               f"try: load_dataset({name!r})\nexcept DataError as error: print(error)")
    output = subprocess.check_output([sys.executable, "-c", program], env=environment,
                                     stderr=subprocess.DEVNULL, universal_newlines=True)
    line = output.strip().split("\n")[-1]  # Keras prints what it tries to download
    assert line.startswith(
        f"{file_name} is not on this machine and Keras cannot download it; expected "
        f"{os.path.join(str(tmp_path), file_name)} with x_train"
    )
    assert line.endswith("put the file there")


def test_cifar10_is_checked_for_its_shapes(tmp_path):
    np.savez(str(tmp_path / "cifar10.npz"), **arrays())
    with pytest.raises(
            DataError, match=
            r"x_train is not that of CIFAR-10; expected uint8 \(50000, 32, 32, 3\); got uint8 "
            r"\(20, 6, 6, 1\)"
    ):
        load_dataset("cifar10", str(tmp_path))


def test_npz_relative_to_the_data_folder_the_variable_and_absolute(saved, monkeypatch):
    monkeypatch.setenv("FLQ_DATA_DIR", str(saved.parent))
    for dataset in (load_dataset("npz:own.npz", str(saved.parent)), load_dataset("npz:own.npz"),
                    load_dataset("npz:" + str(saved))):
        assert dataset.x_train.shape == (20, 6, 6,
                                         1) and dataset.scale == 255 and dataset.num_classes == 4


def test_float_data_keeps_its_shape_and_scale():
    x = np.random.RandomState(0).normal(size=(20, 6, 6))
    dataset = from_arrays(arrays(x_train=x, x_test=x[:8]), "test")
    assert dataset.x_train.dtype == np.float32 and dataset.x_train.shape == (
        20, 6, 6) and dataset.scale == 1


def test_optional_arrays_and_a_column_of_labels():
    column = np.arange(20)[:, None] % 4
    dataset = from_arrays(
        arrays(client_train=np.array(["a", "b"] * 10), num_classes=np.array(9), y_train=column),
        "test")
    assert dataset.num_classes == 9 and dataset.y_train.shape == (20,) and set(
        dataset.clients_train) == {"a", "b"}


@pytest.mark.parametrize("changed, message", [
    ({"y_test": None}, "other keys than a data set"),
    ({"extra": np.zeros(3)}, "other keys than a data set"),
    ({"y_train": np.arange(19) % 4
      }, r"y_train does not label every sample; expected 20 integers; got int64 \(19,\)"),
    ({"y_train": np.arange(20) / 4}, "y_train does not label every sample"),
    ({"y_train": np.arange(20) % 4 - 1
      }, "y_train has a label out of range; expected 0 to 2; got -1 to 2"),
    ({"y_test": np.full(8, 4)}, "y_test has a label out of range; expected 0 to 3; got 4 to 4"),
    ({"num_classes": 3}, "y_train has a label out of range; expected 0 to 2; got 0 to 3"),
    ({"y_train": np.arange(20) - 30},
     "y_train has a label out of range; expected 0 to 0; got -30 to -11; number the classes from 0 "
     "on"
     ),
    ({"y_train": np.arange(20) * 10**9
      }, "y_train has a label out of range; expected 0 to 65535; got 0 to 19000000000"),
    ({"y_train": np.full(20, MAX_CLASSES)
      }, "y_train has a label out of range; expected 0 to 65535; got 65536 to 65536"),
    ({"y_train": np.full(20, 2**63, np.uint64)
      }, f"y_train has a label out of range; expected 0 to 65535; got {2 ** 63} to {2 ** 63}"),
    ({"y_train": np.full(20, 2**64 - 1, np.uint64)
      }, f"y_train has a label out of range; .* to {2 ** 64 - 1}"),
    ({"y_test": np.full(8, -2**63)
      }, f"y_test has a label out of range; expected 0 to 3; got -{2 ** 63} to -{2 ** 63}"),
    ({"y_test": np.full(8, 2**63, np.uint64)}, "y_test has a label out of range; expected 0 to 3"),
    ({"y_train": np.full(20, np.nan)
      }, r"y_train does not label every sample; expected 20 integers; got float64 \(20,\)"),
    ({"y_train": np.ones(20, bool)
      }, "y_train does not label every sample; expected 20 integers; got bool"),
    ({"y_train": np.array(["1"] * 20)}, "y_train does not label every sample"),
    ({"num_classes": 2.5
      }, "num_classes is not a number of classes; expected one integer from 1 to 65536; got 2.5"),
    ({"num_classes": 0}, "num_classes is not a number of classes; .* got 0"),
    ({"num_classes": 10**9}, "num_classes is not a number of classes; .* got 1000000000"),
    ({"num_classes": np.full(
        (30, 30), 4)}, r"num_classes is not a number of classes; .* got int64 \(30, 30\)"),
    ({"x_train": np.zeros(
        (0, 6, 6), np.uint8), "y_train": np.zeros(0, int)}, "x_train cannot be used as samples"),
    ({"x_train": np.zeros(
        (20, 6, 6), np.int64)}, r"x_train cannot be used as samples; .* got int64 \(20, 6, 6\)"),
    ({"x_train": np.array([["a"]] * 20)}, "x_train cannot be used as samples"),
    ({"x_test": np.zeros((8, 5, 6), np.uint8)}, "x_test is of another kind than x_train"),
    ({"x_test": np.zeros((8, 6, 6))}, "x_test is of another kind than x_train"),
    ({"x_train": np.full((20, 6), np.nan), "x_test": np.zeros(
        (8, 6))}, "x_train has NaN or infinite values"),
    ({"x_train": np.zeros((20, 6)), "x_test": np.full(
        (8, 6), np.inf)}, "x_test has NaN or infinite values"),
    ({"x_train": np.full((20, 6), 1e300), "x_test": np.zeros(
        (8, 6))}, "x_train has NaN or infinite values"),
    ({"x_train": np.zeros((20, 0)), "x_test": np.zeros(
        (8, 0))}, "x_train cannot be used as samples"),
    ({"x_test": np.zeros(
        (0, 6, 6), np.uint8), "y_test": np.zeros(0, int)}, "x_test cannot be used as samples"),
    ({"client_train": np.zeros(19, int)}, "client_train does not name a client per sample"),
    ({"client_train": np.zeros(20)}, "client_train does not name a client per sample"),
])
def test_unusable_arrays(changed, message, tmp_path):
    path = tmp_path / "own.npz"
    np.savez(str(path), **arrays(**changed))
    with pytest.raises(DataError, match=message) as caught:
        load_dataset("npz:own.npz", str(tmp_path))
    assert str(path) in str(caught.value) and "\n" not in str(caught.value)


class Unwilling(object):
    def __array__(self, *arguments, **keywords):
        raise RuntimeError("not\nnow")


@pytest.mark.parametrize(
    "changed, message",
    [({"x_train": [[1.0]] * 19 + [[1.0, 2.0]]}, "x_train (is no array|cannot be used as samples)"),
     ({"x_train": Unwilling()
       }, "x_train is no array; expected numbers, with rows of one length; got not$"),
     ({"x_train": np.zeros(
         (20, 6), object)}, r"x_train cannot be used as samples; .* got object \(20, 6\)"),
     ({"x_train": object()}, r"x_train cannot be used as samples; .* got object \(\)"),
     ({"y_train": [0] * 19 + [2**64]
       }, r"y_train does not label every sample; expected 20 integers; got object \(20,\)"),
     ({"y_train": [[0]] * 19 + [[0, 1]]}, "y_train (is no array|does not label every sample)"),
     ({"num_classes": 2**70}, "num_classes is not a number of classes; .* got object"),
     ({"num_classes": "a\nb"}, "num_classes is not a number of classes; .* got <U3"),
     ({"client_train": [0] * 19 + [[1, 2]]
       }, "client_train (is no array|does not name a client per sample)"),
     ({"client_train": np.array([None] * 20)}, "client_train does not name a client per sample"),
     ({7: [1]}, "other keys than a data set; .* got 7, x_test, x_train, y_test, y_train"), ])
def test_unusable_values_of_a_users_function(changed, message):
    with pytest.raises(DataError, match=message) as caught:
        values = arrays()
        values.update(changed)
        from_arrays(values, "package.module:function")
    assert "package.module:function" in str(caught.value) and "\n" not in str(caught.value)


def test_the_largest_number_of_classes_is_taken():
    last = np.full(20, MAX_CLASSES - 1, np.uint64)
    dataset = from_arrays(arrays(y_train=last), "test")
    assert dataset.num_classes == from_arrays(arrays(num_classes=MAX_CLASSES),
                                              "test").num_classes == 65536
    assert dataset.y_train.dtype == np.int32 and dataset.y_train.tolist() == [65535] * 20


def cut_short(content):
    return content[:len(content) // 2]


def one_byte_changed(content):
    middle = content.index(b"x_train.npy") + 200
    return content[:middle] + bytes([content[middle] ^ 0xFF]) + content[middle + 1:]


@pytest.mark.parametrize("damage", [
    cut_short, one_byte_changed, lambda content: b"", lambda content: b"<html>not found</html>",
    lambda content: b"\x80\x04K\x01."
])
def test_damaged_files(damage, saved):
    saved.write_bytes(damage(saved.read_bytes()))
    with pytest.raises(DataError, match="cannot read .*own.npz; expected an npz file") as caught:
        load_dataset("npz:" + str(saved))
    assert "\n" not in str(caught.value)


def test_every_cut_of_a_file_is_one_clear_line(saved):
    content = saved.read_bytes()
    for length in range(0, len(content), 97):
        saved.write_bytes(content[:length])
        with pytest.raises(DataError, match="cannot read .*own.npz"):
            load_dataset("npz:" + str(saved))


@pytest.mark.parametrize("head", [
    "{'descr': '|u1', 'fortran_order': False, 'shape': (%d,)}" % 2**70,
    "{'descr': '|u1', 'fortran_order': False, 'shape': (-1,)}", "{'descr': '|u1'", "{1: 2, 'a': 3}",
    "{[]: 1}", "(" * 3000, "\"\"\"x", "[]", "\x00"
])
def test_a_head_that_no_array_has(head, tmp_path):
    text = head.encode() + b"\n"
    with zipfile.ZipFile(str(tmp_path / "own.npz"), "w") as archive:
        archive.writestr("x_train.npy",
                         b"\x93NUMPY\x02\x00" + struct.pack("<I", len(text)) + text + b"abc")
    with pytest.raises(DataError, match="cannot read .*own.npz") as caught:
        load_dataset("npz:own.npz", str(tmp_path))
    assert "\n" not in str(caught.value)


def test_pickled_objects_are_never_loaded(tmp_path):
    path = str(tmp_path / "own.npz")
    np.savez(path, **arrays(y_train=np.array([{"label": 1}] * 20, dtype=object)))
    with pytest.raises(
            DataError,
            match="cannot read .*no pickled objects; got Object arrays cannot be loaded"):
        load_dataset("npz:" + path)


def test_a_single_array_and_a_missing_file(tmp_path):
    np.save(str(tmp_path / "own.npy"), np.zeros((3, 3)))
    with pytest.raises(DataError, match="File is not a zip file"):
        load_dataset("npz:own.npy", str(tmp_path))
    with pytest.raises(DataError, match="cannot read .*none.npz.*No such file or directory"):
        load_dataset("npz:none.npz", str(tmp_path))


def test_a_function_with_and_without_data_dir():
    dataset = load_dataset("examples.custom_dataset:load")
    assert dataset.x_train.shape == (600, 2) and dataset.num_classes == 3 and len(
        set(dataset.clients_train)) == 12
    assert load_dataset("tests.learning.test_datasets:with_data_dir", "somewhere").num_classes == 4


def with_data_dir(data_dir):
    assert data_dir == "somewhere"
    return arrays()


def needs_more(data_dir, more):
    return arrays()


def returns_a_tuple():
    return tuple(arrays().values())


def takes_a_name(name):
    return arrays()


def raising(data_dir):
    return arrays()[data_dir]


def gives_ragged_samples():
    return arrays(x_train=[[1.0], [1.0, 2.0]])


def gives_keys_that_are_no_texts():
    return {0: 1, "x": 2}


@pytest.mark.parametrize("name, message", [
    ("takes_a_name",
     r"takes other arguments; expected a function without arguments, or of data_dir; got "
     r"takes_a_name\(name\) \(missing a"
     ),
    ("raising",
     r"failed; expected a dict of x_train, y_train, x_test, y_test; got KeyError: .* "
     r"\(.*test_datasets.py:\d+\); "
     r"logging.log_level DEBUG"),
    ("gives_ragged_samples", "tests.learning.test_datasets:gives_ragged_samples"),
    ("gives_keys_that_are_no_texts",
     "gives_keys_that_are_no_texts has other keys than a data set; .*; got 0, x"),
])
def test_a_function_that_does_wrong_is_blamed_in_one_line(name, message):
    with pytest.raises(DataError, match=message) as refused, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # NumPy 1.19 warns of ragged arrays
        load_dataset("tests.learning.test_datasets:" + name)
    assert "\n" not in str(refused.value) and "tests.learning.test_datasets:" + name in str(
        refused.value)


@pytest.mark.parametrize("text, message", [
    ("def load(:\n",
     "broken_module:load failed; expected a module that can be imported; got SyntaxError: "
     ".*broken_module.py, line 1"
     ),
    ("import no_such_package\n",
     r"broken_module:load failed; .*No module named 'no_such_package' \(.*broken_module.py:1\)"),
    ("1 / 0\n",
     r"broken_module:load failed; .*ZeroDivisionError: division by zero \(.*broken_module.py:1\)")
])
def test_a_module_that_cannot_be_imported_is_blamed_in_one_line(tmp_path, monkeypatch, text,
                                                                message):
    (tmp_path / "broken_module.py").write_text(text)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delitem(sys.modules, "broken_module", raising=False)
    check_dataset("broken_module:load")  # it is there, and was not run
    with pytest.raises(DataError, match=message):
        load_dataset("broken_module:load")


def test_a_missing_file_is_told_with_the_nearest_one_there(tmp_path):
    (tmp_path / "hospital.npz").write_bytes(b"")
    for check in (check_dataset, load_dataset):
        with pytest.raises(
                DataError, match=
                "cannot read .*hopsital.npz; .*No such file or directory; did you mean "
                "npz:hospital.npz?"
        ):
            check("npz:hopsital.npz", str(tmp_path))
        with pytest.raises(DataError, match=f"did you mean npz:{tmp_path}/hospital.npz?"):
            check(f"npz:{tmp_path}/hospitl.npz")
        with pytest.raises(
                DataError, match=
                "cannot read .*none/x.npz; .*paths start at dataset.data_dir, else FLQ_DATA_DIR"):
            check("npz:none/x.npz")


@pytest.mark.parametrize("name", ["digits", "mnist", "examples.custom_dataset:load"])
def test_what_is_there_passes_the_first_look(name):
    check_dataset(name)


@pytest.mark.parametrize("name, message", [
    ("mnits", "got mnits; did you mean mnist?"),
    ("examples.custom_dataset:laod", "did you mean examples.custom_dataset:load?"),
    ("minst", r"unknown data set; expected digits, mnist, fmnist, cifar10, npz:FILE, "
     r"csv:FILE\?label=COLUMN, images:FOLDER or package.module:function; got minst"),
    ("no_such_package:load", "cannot import no_such_package:load"),
    ("examples.custom_dataset:laod", "cannot import examples.custom_dataset:laod"),
    (":load", "cannot import :load"),
    ("examples.custom_dataset:np",
     "examples.custom_dataset:np cannot be called; expected a function; got module"),
    ("tests.learning.test_datasets:needs_more",
     r"needs_more takes other arguments; expected a function without arguments, or of data_dir; "
     r"got needs_more\(data_dir, more\)"
     ), ("builtins:dict", "builtins:dict has other keys than a data set"),
    ("tests.learning.test_datasets:returns_a_tuple",
     "returned no data set; expected a dict of .*; got tuple"),
])
def test_names_that_are_not_there(name, message):
    with pytest.raises(DataError, match=message):
        load_dataset(name)


def test_registry_lists_the_documented_names():
    assert list(DATASETS) == ["digits", "mnist", "fmnist", "cifar10"]
    assert ARRAYS == ("x_train", "y_train", "x_test", "y_test")
