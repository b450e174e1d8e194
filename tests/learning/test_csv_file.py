"""CSV files: what is read, how labels are numbered, and one line with file, line and column for
whatever is wrong."""

import codecs

import numpy as np
import pytest

from flq.errors import DataError
from flq.learning.datasets import check_dataset, csv_file, load_dataset

ROWS = [(f"s{k % 3}", k, -0.5 * k, "cat" if k % 2 else "dog") for k in range(20)]
TABLE = "site,age,weight,kind\n" + "".join(",".join(map(str, row)) + "\n" for row in ROWS)


@pytest.fixture
def load(tmp_path):
    """Write a file and load it; options as in the name of a data set."""
    def write_and_load(text=TABLE, options="label=kind&client=site", report=None, **files):
        files["t"] = text
        for name, content in files.items():
            data = content if isinstance(content, bytes) else content.encode("utf-8")
            (tmp_path / (name + ".csv")).write_bytes(data)
        return load_dataset(f"csv:t.csv?{options}" if options else "csv:t.csv", str(tmp_path),
                            report)
    return write_and_load


def refusal(load, *arguments, **options):
    with pytest.raises(DataError) as caught:
        load(*arguments, **options)
    line = str(caught.value)
    assert "\n" not in line and len(line) < 600
    return line.replace(line.split("t.csv")[0], "", 1) if "t.csv" in line else line


def test_a_table_with_clients_and_labels_by_name(load):
    data = load()
    assert data.features == ("age", "weight") and data.classes == ("cat", "dog")
    assert data.num_classes == 2 and data.scale == 1.0
    test = [8, 18, 9, 19]  # the fifth and tenth row of each label
    kept = [k for k in range(20) if k not in test]
    assert data.x_train.dtype == np.float32 and data.x_train.tolist() == [[k, -0.5 * k]
                                                                         for k in kept]
    assert data.y_train.tolist() == [0 if k % 2 else 1 for k in kept]
    assert data.clients_train.tolist() == [f"s{k % 3}" for k in kept]
    assert sorted(data.x_test[:, 0].tolist()) == sorted(test)
    assert data.y_test.tolist() == [0 if k % 2 else 1 for k in data.x_test[:, 0].astype(int)]


def test_many_rows_are_read_in_blocks(load, monkeypatch):
    monkeypatch.setattr(csv_file, "_BLOCK", 3)
    assert load().x_train.tolist() == [[k, -0.5 * k] for k in range(20) if k not in (8, 9, 18, 19)]


@pytest.mark.parametrize("delimiter", [";", "\t"])
def test_the_delimiter_is_that_of_the_first_line(load, delimiter):
    assert load(TABLE.replace(",", delimiter)).features == ("age", "weight")


def test_quotes_empty_lines_spaces_windows_line_ends_and_a_byte_order_mark(load):
    text = '"a, first",b, y \r\n' + '1 , "2",x\r\n\r\n' * 5
    data = load(codecs.BOM_UTF8 + text.encode("utf-8"), "label=y")
    assert data.features == ("a, first", "b") and data.x_train.tolist() == [[1, 2]] * 4


@pytest.mark.parametrize("labels, classes, numbers", [
    (["0", "2", "1"], ("0", "1", "2"), [0, 2, 1]),
    (["3", "1"], ("0", "1", "2", "3"), [3, 1]),
    (["1.0", "0.0"], ("0", "1"), [1, 0]),
    (["-1", "1"], ("-1", "1"), [0, 1]),
    (["100000", "9"], ("9", "100000"), [1, 0]),
    (["b", "10", "a"], ("10", "a", "b"), [2, 0, 1]),
])
def test_how_labels_are_numbered(load, labels, classes, numbers):
    text = "x,y\n" + "".join(f"1,{label}\n" for label in labels * 5)
    data = load(text, "label=y")
    assert data.classes == classes and data.num_classes == len(classes)
    assert data.y_train[:len(labels)].tolist() == numbers


def test_classes_number_labels_whatever_a_file_has(load):
    data = load(options="label=kind&ignore=site&classes=bird,dog,cat")
    assert data.classes == ("bird", "dog", "cat") and data.num_classes == 3
    assert sorted(set(data.y_train.tolist())) == [1, 2]
    assert refusal(load, options="label=kind&ignore=site&classes=bird,dog").startswith(
        "t.csv line 3, column 'kind': a label that is not among classes; expected bird, dog; got "
        "'cat'")


def test_a_file_of_its_own_for_the_test_in_another_order(load):
    text = "kind,weight,age\ndog,1,2\nbird,3,4\n"
    data = load(options="label=kind&client=site&test=u.csv", u=text)
    assert len(data.y_train) == 20 and data.x_test.tolist() == [[2, 1], [4, 3]]
    assert data.classes == ("bird", "cat", "dog") and data.y_test.tolist() == [2, 0]
    assert "u.csv line 1 has no column 'weight'; expected age, weight; got kind, age" in refusal(
        load, options="label=kind&client=site&test=u.csv", u="kind,age\ndog,1\n")


def test_names_with_any_letter(load):
    text = "größe & co,x\n" + "a,1\n" * 5
    assert load(text, "label=gr%C3%B6%C3%9Fe %26 co").classes == ("a",)


@pytest.mark.parametrize("text, options, line", [
    (TABLE, "", "t.csv does not say which column is the label; expected csv:"),
    (TABLE, "label=knd", "t.csv line 1 has no column 'knd'; expected site, age, weight, kind; got "
     "'knd'; did you mean kind?"),
    (TABLE, "label=kind&client=sit", "t.csv line 1 has no column 'sit'"),
    (TABLE, "label=kind&ignore=sight", "t.csv line 1 has no column 'sight'"),
    (TABLE, "label=kind&ignore=site,age,weight", "t.csv line 1 has no column left as a feature"),
    (TABLE, "label=kind", "t.csv line 2, column 'site': not a number; expected a number; got 's0'; "
     "leave the column out with ignore="),
    ("", "label=y", "t.csv is empty"),
    ("x,y\n", "label=y", "t.csv has no row that can be used"),
    (",y\n1,2\n", "label=y", "t.csv line 1: column 1 has no name"),
    ("x,y,x\n1,2,3\n", "label=y", "t.csv line 1: two columns have the name 'x'; expected different "
     "names; got columns 1 and 3"),
    ("x,y\n1,a\n1,2,3\n", "label=y", "t.csv line 3 has another number of cells than line 1; "
     "expected 2; got 3"),
    ("x,y\n1,a\n1\n", "label=y", "t.csv line 3 has another number of cells"),
    ("x,y\n1,a\n,a\n", "label=y", "t.csv line 3, column 'x': a value is missing; expected a "
     "number; got ''"),
    ("x,y\nNA,a\n", "label=y", "t.csv line 2, column 'x': a value is missing"),
    ("x,y\nnan,a\n", "label=y", "t.csv line 2, column 'x': a value is missing"),
    ("x,y\n-inf,a\n", "label=y", "t.csv line 2, column 'x': too large"),
    ("x,y\n1e39,a\n", "label=y", "t.csv line 2, column 'x': too large"),
    ("x,y\n1_000,a\n", "label=y", "t.csv line 2, column 'x': not a number"),
    ("x;y\n1,5;a\n", "label=y", "t.csv line 2, column 'x': not a number; expected a number; got "
     "'1,5'; write decimals with a point"),
    ("x,y\n1,\n", "label=y", "t.csv line 2, column 'y': the label is missing"),
    ("x,y\n1,2.5\n", "label=y", "t.csv line 2, column 'y': this is no label of a class"),
    ("x,y\n1,a\n", "label=y", "t.csv has too few rows to keep some for the test"),
    ("x,y\n" + "1," + "9" * 200000 + "\n", "label=y", "t.csv line 2 cannot be read"),
    ("x,y\n" + "9" * (2 ** 22 + 1), "label=y", "t.csv line 2 is too long"),
    (",".join(f"c{k}" for k in range(65537)) + "\n", "label=c1",
     "t.csv line 1 has too many columns"),
    (b"x,y\n1,a\n2,caf\xe9\n", "label=y", "t.csv line 3 is not UTF-8; expected a CSV file in UTF-8 "
     "whose first line names the columns; got byte 0xe9 at place 6"),
    ("x,y\n1,2\n".encode("utf-16"), "label=y", "t.csv line 1 is not UTF-8; expected a CSV file in "
     "UTF-8 whose first line names the columns; got UTF-16"),
    (b"PK\x03\x04\x99\x00\x00", "label=y", "t.csv line 1 is not UTF-8"),
    (TABLE, "lable=kind",
     "t.csv?lable=kind has an option that cannot be used; expected label=..., "),
    (TABLE, "label=kind&label=age", "t.csv?label=kind&label=age has an option that cannot be used"),
    (TABLE, "label=kind&test=nowhere.csv", "nowhere.csv"),
])  # yapf: disable
def test_what_is_wrong_is_one_line_that_names_its_place(load, text, options, line):
    assert line in refusal(load, text, options)


def test_a_missing_column_is_noticed_before_anything_is_loaded(load, tmp_path):
    load()
    with pytest.raises(DataError, match="has no column 'knd'"):
        check_dataset("csv:t.csv?label=knd", str(tmp_path))
    with pytest.raises(DataError, match="did you mean csv:t.csv?"):
        check_dataset("csv:tt.csv?label=kind", str(tmp_path))
    with pytest.raises(DataError, match="got no file"):
        check_dataset("csv:.?label=kind", str(tmp_path))


def test_wrong_rows_can_be_noted_and_left_out(load):
    noted = []
    text = TABLE.replace("\ns1,1,-0.5,cat", "\ns1,one,,cat").replace("\ns2,2,-1.0,dog", "\ns2,2")
    data = load(text, report=noted.append)
    assert len(data.y_train) + len(data.y_test) == 18
    assert [str(error).rpartition("t.csv ")[2].partition(";")[0] for error in noted] == [
        "line 3, column 'age': not a number", "line 3, column 'weight': a value is missing",
        "line 4 has another number of cells than line 1"
    ]
