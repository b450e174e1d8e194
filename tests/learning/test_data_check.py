"""What check-data finds, one kind of trouble at a time."""

import numpy as np
import pytest

from flq import config
from flq.learning.data_check import check_data, form
from flq.learning.datasets import load_dataset
from flq.learning.partition import data_hash, partition, partition_hash


@pytest.fixture
def check(tmp_path):
    """Write npz arrays (x, y, clients) or a CSV text, and check them."""
    def write_and_check(x=None, y=None, clients=None, test=None, text=None, name=None, **values):
        values = dict({"total_workers": 3, "batch_size": 4, "local_lr": 0.1}, **values)
        if text is not None:
            (tmp_path / "t.csv").write_text(text)
        elif x is not None:
            x = np.asarray(x, np.float32)
            y = np.arange(len(x)) % 2 if y is None else np.asarray(y)
            arrays = {"x_train": x, "y_train": y, "x_test": x + 0.5 if test is None else test,
                      "y_test": y if test is None else y[:len(test)]}
            if clients is not None:
                arrays["client_train"] = np.asarray(clients)
            np.savez(str(tmp_path / "t.npz"), **arrays)
        values.update({"dataset.name": name or "npz:t.npz", "dataset.data_dir": str(tmp_path)})
        return check_data(config.build(values))
    return write_and_check


X = np.random.RandomState(0).uniform(size=(60, 3)).astype(np.float32)


def test_good_data_need_no_word(check):
    found = check(X)
    assert found.errors == found.warnings == []
    assert found.counts.shape == (3, 2) and found.counts.sum() == 60
    assert found.test_counts.tolist() == [30, 30]


def test_the_counts_are_those_of_the_shards_of_a_run(check, tmp_path):
    values = {"dataset.partition": "non_iid", "dataset.dir_alpha": 0.2}
    found = check(X, **values)
    data = load_dataset("npz:t.npz", str(tmp_path))
    shards = partition(data.y_train, None, config.build(dict(
        {"total_workers": 3, "batch_size": 4}, **values)))
    assert found.counts.tolist() == [
        np.bincount(data.y_train[shard], minlength=2).tolist() for shard in shards]
    assert found.hash == partition_hash(shards)


@pytest.mark.parametrize("change, warning", [
    (lambda x: np.column_stack([x, np.ones(60)]), "feature 3 (the first is 0): constant, so that "
     "nothing can be learnt from it"),
    (lambda x: x * [1, 1000, 1], "feature 1 (the first is 0): values up to 9"),
    (lambda x: x[:, [0, 0]] * [1, 1e-4],
     "feature 0 (the first is 0) spreads 1e+04 times as much as feature 1 (the first is 0): "
     "unscaled features are learnt unevenly"),
])  # yapf: disable
def test_columns(check, change, warning):
    assert any(line.startswith(warning) for line in check(change(X)).warnings)
    standardized = check(change(X), standardize=True).warnings
    assert ("constant" in warning) == any(line.startswith(warning) for line in standardized)


def test_samples_of_the_test_that_were_trained_on(check):
    found = check(X, test=np.concatenate([X[:7], X[:5] + 1]))
    assert "7 of 12 test samples are training samples too: accuracy is too high" in found.warnings


@pytest.mark.parametrize("y, warnings", [
    ([0] * 30 + [2] * 30, ["no training sample of label 1", "no test sample of label 1"]),
    ([0] * 55 + [1] * 5, ["fewer than 20 training samples of label 1"]),
    ([0] * 40 + [1, 2, 3, 4] * 5, ["fewer than 20 training samples of labels 1, 2, 3, 4"]),
])  # yapf: disable
def test_labels(check, y, warnings):
    assert [line for line in check(X, y).warnings if "label" in line] == warnings


def test_labels_out_of_range_and_missing_values_in_an_npz_file_are_errors(check):
    assert "y_train has a label out of range; expected 0 to 1; got -1 to 1" in check(
        X, np.arange(60) % 3 - 1).errors[0]
    assert "x_train has NaN or infinite values" in check(np.where(X > 0.9, np.nan, X)).errors[0]


def test_clients_and_workers(check):
    assert check(X, clients=np.arange(60) % 2, **{"dataset.partition": "natural"}).warnings == [
        "2 clients for 3 workers: 1 of them get samples of other workers' clients",
        "2 of 3 workers have samples of one label only"]
    assert "needs the data's own clients" in check(X, **{"dataset.partition": "natural"}).errors[0]
    assert "fewer training samples than workers" in check(X, total_workers=61).errors[0]
    assert check(X, batch_size=32).warnings == [
        "3 of 3 workers have fewer samples than dataset.batch_size 32: their batches are smaller"]
    text = "x,y,who\n" + "".join(f"0.{k},{k % 2},a\n" for k in range(50, 99))
    assert [line for line in check(text=text, name="csv:t.csv?label=y&client=who").warnings
            if "client" in line] == [
        "client= has no effect with partition iid: set dataset.partition to natural"]


def test_workers_with_one_label(check):
    found = check(X, clients=np.arange(60) % 2, total_workers=2, **{"dataset.partition": "natural"})
    assert "2 of 2 workers have samples of one label only" in found.warnings


def test_every_wrong_row_of_a_table_is_named_up_to_ten(check):
    rows = ["%d,%s" % (k, "x" if k % 2 else "y") for k in range(40)]
    rows[3:18] = ["," for _ in range(15)]
    found = check(text="a,b\n" + "\n".join(rows) + "\n", name="csv:t.csv?label=b")
    assert len(found.errors) == 11 and found.errors[-1] == "5 more values or rows like these"
    assert [line.partition("t.csv ")[2].partition(",")[0] for line in found.errors[:10]] == [
        f"line {line}" for line in range(5, 15)]
    assert found.counts.sum() == len(rows) - 15 - 4


def test_a_column_that_numbers_the_rows(check):
    text = "id,a,b\n" + "".join(f"{k},0.{k % 7},{k % 2}\n" for k in range(60))
    assert any(line.startswith("column id: rises by whole numbers") for line in check(
        text=text, name="csv:t.csv?label=b").warnings)


def test_what_cannot_be_loaded_is_one_error(check):
    found = check(name="npz:nowhere.npz")
    assert len(found.errors) == 1 and "nowhere.npz" in found.errors[0] and found.dataset is None


def test_local_data_are_those_of_this_machine(check):
    found = check(X, **{"dataset.partition": "local"})
    assert found.counts.tolist() == [[30, 30]] and found.hash == ""


def test_what_machines_compare_has_the_names(check, tmp_path):
    text = "a,b\n" + "".join(f"0.{k},{'xy'[k % 2]}\n" for k in range(50))
    found = check(text=text, name="csv:t.csv?label=b")
    settings = config.build({"total_workers": 3, "batch_size": 4, "dataset.name":
                             "csv:t.csv?label=b"})
    shards = partition(found.dataset.y_train, None, settings)
    assert found.hash == data_hash(shards, found.dataset, settings) != partition_hash(shards)
    renamed = found.dataset._replace(features=("A",))
    assert data_hash(shards, renamed, settings) != found.hash
    rows = dict(form(settings, found))
    assert rows["columns"] == "a (1)" and rows["classes"] == "x, y (2)"
    assert rows["compared"] == found.hash and "fifth" in rows["test"]
