"""The pages as files, and in a real browser without a network."""

import html.parser
import json
import re

import pytest

from flq.errors import DataError
from flq.reports.comparison import compare_runs
from flq.reports.html_report import write_comparison_page, write_report
from tests.reports.runs import in_folders, make_run, round_record, three_rounds
from tests.system.browser import skip_without_chromium, start_chromium

HOSTILE = ("<img src=x onerror=\"document.title='hacked'\"><script>alert(1)</script>"
           "\x00\ud800'\"&{{1}}")
SHOWN = HOSTILE.replace("\x00\ud800", " ")


def hostile_run():
    run = make_run([round_record(0), round_record(1, cohort=1, skipped=(7,))],
                   system__cohorts=2, model__lr=0.5)
    for section, name in (("dataset", "name"), ("model", "name"), ("flq_algorithm", "mode")):
        run.config[section][name] = HOSTILE
    run.config["system"][HOSTILE] = {HOSTILE: [HOSTILE]}
    summary = dict(run.summary, run_id=HOSTILE, phase=HOSTILE, dataset=HOSTILE, model=HOSTILE,
                   mode=HOSTILE, devices={HOSTILE: {HOSTILE: [HOSTILE], "gpu": HOSTILE}})
    return run._replace(run_id=HOSTILE, summary=summary)


class Page(html.parser.HTMLParser):
    """Tags, attributes and texts of a page."""

    def __init__(self, path):
        super().__init__()
        self.tags, self.attributes, self.texts = [], [], []
        self.feed(path.read_text("utf-8"))

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.attributes += [(tag, name, value) for name, value in attrs]

    def handle_data(self, data):
        self.texts.append(data)


def pages(tmp_path, run):
    return [write_report(tmp_path / "report.html", run, [0.55]),
            write_comparison_page(tmp_path / "comparison.html", compare_runs(
                in_folders(mine=three_rounds(), **{HOSTILE: run})))]


def test_a_report_says_what_the_table_says(tmp_path):
    texts = Page(write_report(tmp_path / "report.html", three_rounds(), [0.7])).texts
    assert "digits-1" in texts and "7, 2" in texts and "1 skipped, 1 refused, 1 late" in texts
    assert "FINISHED after 3 rounds: digits, cnn_small, mode laq, 4 workers" in texts
    start = texts.index("to reach")
    assert [text for text in texts[start:] if text.strip()][7:11] == [
        "70.00 %", "1", "160 bit", "1.00 s"]
    heads = [texts.index(word) for word in ("accepted", "missing", "skipped")]
    assert heads == sorted(heads)


def test_everything_is_in_the_file(tmp_path):
    for path in pages(tmp_path, hostile_run()):
        page = Page(path)
        assert not {"script", "link", "iframe", "object", "embed"} & set(page.tags) - {"link"}
        for tag, name, value in page.attributes:
            if name in ("src", "href"):
                assert value.startswith("data:"), (tag, value[:80])
            assert not name.startswith("on"), (tag, name)
        assert page.tags.count("img") == (3 if path.stem == "report" else 1)
        assert not re.search(r"url\(|@import", path.read_text("utf-8"))


def test_hostile_names_are_shown_as_they_are(tmp_path):
    for path in pages(tmp_path, hostile_run()):
        shown = " ".join("".join(Page(path).texts).split())
        assert " ".join(SHOWN.split()) in shown


@pytest.mark.parametrize("run", [
    make_run([]), make_run([round_record(0, accuracy=None, loss=None, train_loss=None)]),
    make_run([round_record(0, loss=float("nan"), wire_bits_up=None)], phase="UNFINISHED")],
    ids=["no rounds", "not tested", "interrupted"])
def test_no_run_is_too_odd(tmp_path, run):
    assert all(path.stat().st_size > 1000 for path in pages(tmp_path, run))


def test_a_warning_stands_on_the_page(tmp_path):
    run = make_run([round_record(0)], phase="UNFINISHED")
    texts = Page(write_report(tmp_path / "run-a" / "report.html", run)).texts
    assert "run-a is UNFINISHED after 1 of 100 rounds" in texts


def test_a_path_that_cannot_be_written_is_one_line(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(DataError, match="cannot write .*file"):
        write_report(tmp_path / "file" / "report.html", three_rounds())


@pytest.fixture(scope="module")
def chromium():
    skip_without_chromium()
    with start_chromium(logs=("browser", "performance")) as driver:
        driver.execute_cdp_cmd("Network.enable", {})
        driver.execute_cdp_cmd("Network.emulateNetworkConditions", {
            "offline": True, "latency": 0, "downloadThroughput": 0, "uploadThroughput": 0})
        yield driver


@pytest.mark.parametrize("width", [1200, 400])
def test_a_browser_opens_them_offline_with_a_clean_console(tmp_path, chromium, width):
    chromium.set_window_size(width, 900)
    for path in pages(tmp_path, hostile_run()):
        chromium.get_log("browser"), chromium.get_log("performance")
        chromium.get(path.as_uri())
        run = chromium.execute_script
        images = run(
            "return [...document.images].map((i) => [i.complete, i.naturalWidth, i.width])")
        assert images and all(done and size > 300 and shown > 200 for done, size, shown in images)
        assert chromium.title != "hacked"
        assert run("return document.querySelectorAll('img[onerror], script').length") == 0
        assert run("return document.body.scrollWidth <= window.innerWidth"), "it scrolls sideways"
        assert chromium.get_log("browser") == []
        events = [json.loads(entry["message"])["message"]
                  for entry in chromium.get_log("performance")]
        asked = [event["params"]["request"]["url"] for event in events
                 if event["method"] == "Network.requestWillBeSent"]
        assert asked and all(url.startswith(("file:", "data:")) for url in asked)
