"""The live page in a real browser: once from the master itself, else from a server whose answers
the test decides.
"""

import html.parser
import json
import re
import shutil
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PAGE = ROOT / "flq" / "master" / "http" / "page"
CHROMIUM = shutil.which("chromium") or shutil.which("google-chrome")
CHROMEDRIVER = shutil.which("chromedriver")
WAIT_S = 30  # the page asks every 2 s, and every 5 s while nobody answers

HOSTILE = "<img src=x onerror=\"document.title='hacked'\">"


class Server:
    """Serves the page as the master does, and the status and history that the test sets."""

    def __init__(self):
        import flask

        self.status = status(3)
        self.rounds = [record(k) for k in range(3)]
        self.port = 0
        self.app = flask.Flask(__name__, static_folder=str(PAGE), static_url_path="/page")
        self.app.add_url_rule("/", "index", lambda: self.app.send_static_file("index.html"))
        self.app.add_url_rule("/status", "status", lambda: self.status)
        self.app.add_url_rule(
            "/history", "history",
            lambda: as_json({"rounds": self.rounds[int(flask.request.args["since"]):]}))
        self.app.after_request(allow_own_content_only)

    def start(self):
        from werkzeug.serving import make_server

        self.server = make_server("127.0.0.1", self.port, self.app, threaded=True)
        self.port = self.server.server_port
        self.thread = threading.Thread(target=self.server.serve_forever, daemon=True)
        self.thread.start()

    def stop(self):
        self.server.shutdown()
        self.thread.join()
        self.server.server_close()

    @property
    def url(self):
        return f"http://127.0.0.1:{self.port}/"


def allow_own_content_only(response):
    response.headers["Content-Security-Policy"] = "default-src 'self'"
    response.headers["X-Content-Type-Options"] = "nosniff"
    return response


def as_json(document):
    """1e999 is JSON, and infinite for a browser; Python would write the word Infinity, which is
    none.
    """
    return json.dumps(document).replace("Infinity", "1e999"), {"Content-Type": "application/json"}


def status(rounds, **changes):
    bits = {
        "nominal": 400 * rounds, "payload": 500 * rounds, "wire": None, "float32": 4000 * rounds
    }
    worker = {
        "state": "training", "last_seen_s": 1.5, "round": rounds, "loss": 0.5, "clock": 0,
        "skipped": 0, "uploads": rounds, "missing": 0, "bits_up": 250 * rounds,
        "bits_down": 12345678, "device": {"gpu": "Tegra X1", "memory_mb": 3964}
    }
    values = {
        "run_id": "digits-1", "phase": "BIDDING", "paused": False, "mode": "laq",
        "dataset": "digits", "model": "cnn_small", "current_round": rounds, "max_rounds": 30,
        "connected_workers": 2, "total_workers": 3, "pending_updates": 1, "accuracy": 0.9125,
        "loss": 0.2841, "eta_s": 95.0, "error": None, "bits": {"up": bits, "down": bits},
        "worker_status": {
            "10": worker, "2": dict(worker, state="refused", loss=None, last_seen_s=None,
                                    missing=41, device={})
        }
    }
    values.update(changes)
    return values


def record(round_, **changes):
    return dict(
        {
            "round": round_, "accuracy": 0.5 + round_ / 100, "loss": 2.0 / (round_ + 1),
            "train_loss": 2.1 / (round_ + 1)
        }, **changes)


@pytest.fixture(scope="module")
def chromium():
    pytest.importorskip("selenium", reason="the browser test needs selenium: pip install selenium")
    if not (CHROMIUM and CHROMEDRIVER):
        pytest.skip("no Chromium with its driver here: apt install chromium chromium-driver")
    from selenium import webdriver
    from selenium.webdriver.chrome.service import Service

    options = webdriver.ChromeOptions()
    options.binary_location = CHROMIUM
    for argument in ("--headless=new", "--no-sandbox", "--disable-dev-shm-usage",
                     "--window-size=1200,1000"):
        options.add_argument(argument)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    driver = webdriver.Chrome(options=options, service=Service(CHROMEDRIVER))
    yield driver
    driver.quit()


@pytest.fixture
def server(chromium):
    server = Server()
    server.start()
    yield server
    chromium.get("about:blank")  # nobody asks a server that has gone
    server.stop()


@pytest.fixture
def page(chromium, server):
    """Reads the open page by CSS selector."""
    page = Page(chromium)
    page.open(server.url)
    return page


class Page:
    def __init__(self, driver):
        self.driver = driver

    def open(self, url):
        self.driver.get_log("browser")  # forgets what earlier pages complained of
        self.driver.get(url)
        self.wait(lambda: self.text("#phase"))

    def wait(self, condition):
        from selenium.webdriver.support.ui import WebDriverWait

        WebDriverWait(self.driver, WAIT_S, 0.1).until(lambda _: condition())

    def run(self, script, *arguments):
        return self.driver.execute_script("return " + script, *arguments)

    def text(self, selector):
        return self.run("document.querySelector(arguments[0]).textContent", selector)

    def texts(self, selector):
        return self.run(
            "[...document.querySelectorAll(arguments[0])].map((node) => node.textContent)",
            selector)

    def points(self, selector):
        """Points of a curve, 0 where there is none."""
        return self.run(
            "(document.querySelector(arguments[0])?.getAttribute('points') ?? '').split(' "
            "').filter(Boolean).length",
            selector)

    def click(self, selector):
        self.run("document.querySelector(arguments[0]).click()", selector)

    def complaints(self):
        return [entry for entry in self.driver.get_log("browser") if entry["level"] == "SEVERE"]


def test_the_run_is_shown(page):
    assert page.run("document.title") == "3/30 FLQ"
    assert page.text("#run") == "digits, cnn_small, laq (digits-1)"
    assert page.text("#phase") == "Workers are training"
    assert page.text("#round") == "Round 3 / 30"
    assert page.run("document.querySelector('#progress').position") == pytest.approx(0.1)
    assert page.texts("dd") == ["91.25 %", "0.2841", "1 min 35 s", "2 / 3", "1"]
    assert page.points("#accuracy-chart .curve.first") == page.points(
        "#loss-chart .curve.second") == 3
    assert page.run(
        "document.querySelector('#away').hidden && document.querySelector('#error').hidden")
    assert page.complaints() == []


def test_bits_stand_against_float32(page):
    assert page.texts("#bits-up span") == [
        "float32", "12.0 kbit", "", "nominal", "1.20 kbit", "10.0× less", "payload", "1.50 kbit",
        "8.0× less"
    ]
    widths = page.run(
        "[...document.querySelectorAll('#bits-down rect')].map((bar) => bar.getAttribute('width'))")
    assert widths == ["100.00%", "10.00%", "12.50%"]


def test_workers_come_in_the_order_of_their_numbers(page):
    rows = page.run(
        "[...document.querySelectorAll('#workers tr')].map((row) => [...row.cells].map((cell) => "
        "cell.textContent))"
    )
    assert rows == [
        ["2", "refused", "never", "3", "–", "0", "3", "41", "750 bit", "12.3 Mbit", ""],
        ["10", "training", "2 s ago", "3", "0.5", "0", "3", "0", "750 bit", "12.3 Mbit",
         "gpu: Tegra X1, memory_mb: 3964"],
    ]


def test_what_workers_say_is_text(page, server):
    worker = dict(server.status["worker_status"]["2"], state=HOSTILE,
                  device={HOSTILE: HOSTILE, "deep": {"x": HOSTILE}})
    server.status = status(3, worker_status={"0": worker}, error=HOSTILE, run_id=HOSTILE,
                           phase=HOSTILE, dataset=HOSTILE)
    page.wait(lambda: HOSTILE in page.text("#error"))
    assert page.texts("#workers td")[1] == page.text("#phase") == HOSTILE
    assert page.run("document.images.length") == 0
    assert page.run("document.title") == "3/30 FLQ"
    assert page.complaints() == []


def test_chinese_is_one_click_away_and_remembered(page, server):
    english = page.texts("[data-text], #columns th, #phase, .less")
    page.click("#language")
    chinese = page.texts("[data-text], #columns th, #phase, .less")
    assert page.text("#phase") == "工作节点训练中"
    assert page.text("#language") == "English"
    assert not set(english) & set(chinese)
    page.open(server.url)
    assert page.text("#phase") == "工作节点训练中"
    assert "undefined" not in page.run("document.body.innerText")
    page.click("#language")
    assert page.texts("[data-text], #columns th, #phase, .less") == english


def test_new_rounds_and_late_test_results_appear(page, server):
    server.rounds = [record(0), record(1), record(2, accuracy=None), record(3, accuracy=None)]
    server.status = status(4)
    page.wait(lambda: page.text("#round") == "Round 4 / 30" and page.points(
        "#loss-chart .curve.first") == 4)
    server.rounds = [record(k) for k in range(4)]
    page.wait(lambda: page.points("#accuracy-chart .curve.first") == 4)


@pytest.mark.parametrize("losses, drawn", [((1.0, 1.0 + 2**-52), 2), ((1.0, 1.0), 2),
                                           ((0.0, 0.0), 2), ((1e16, 1e16 + 2), 2),
                                           ((-1e-9, 1e-300), 2), ((0.0, 5e-324), 2),
                                           ((-1e300, 1.0, 1e300), 1),
                                           ((float("inf"), float("-inf"), 1.0), 1),
                                           ((float("inf"),), 0), ((1e-6, 1e6), 2),
                                           ((0.3, 0.1 + 0.2), 2), ])
def test_any_values_give_a_chart_with_a_few_ticks(page, server, losses, drawn):
    server.rounds = [record(k, loss=loss, train_loss=None) for k, loss in enumerate(losses)]
    server.status = status(len(losses), run_id="digits-2", mode=str(losses))
    page.wait(lambda: str(losses) in page.text("#run"))
    assert page.points("#loss-chart .curve.first") == drawn
    lines = page.run("document.querySelectorAll('#loss-chart .grid').length")
    assert 2 <= lines <= 6 if drawn else lines == 0
    assert "NaN" not in page.run("document.querySelector('#loss-chart svg').outerHTML")
    assert page.complaints() == []


def test_another_run_starts_new_curves(page, server):
    server.rounds = [record(0, train_loss=None)]
    server.status = status(1, run_id="digits-2")
    page.wait(lambda: page.points("#accuracy-chart .curve.first") == 1)
    assert page.points("#loss-chart .curve.second") == 0


def test_a_run_without_rounds_or_workers(page, server):
    server.rounds = []
    server.status = status(0, phase="WAITING", accuracy=None, loss=None, eta_s=None,
                           worker_status={})
    page.wait(lambda: page.text("#phase") == "Waiting for workers")
    assert page.texts("dd") == ["–", "–", "–", "2 / 3", "1"]
    assert page.texts("#accuracy-chart text") == ["No round was tested yet"]
    assert page.texts("#workers td") == ["No worker has registered yet"]
    assert page.complaints() == []


def test_a_stopped_run_says_so(page, server):
    server.status = status(3, phase="FINISHED", stopped=True)
    page.wait(lambda: page.text("#phase") == "Stopped")


def test_the_master_may_go_away_and_come_back(page, server):
    server.stop()
    page.wait(lambda: "The master does not answer" in page.text("#away"))
    assert page.text("#round") == "Round 3 / 30"
    server.status = status(5, paused=True)
    server.start()
    page.wait(lambda: page.text("#round") == "Round 5 / 30")
    assert page.run("document.querySelector('#away').hidden")
    assert page.text("#phase") == "Paused"


def test_a_phone_needs_no_sideways_scrolling(page, server):
    page.driver.execute_cdp_cmd(
        "Emulation.setDeviceMetricsOverride",
        {"width": 360, "height": 740, "deviceScaleFactor": 2, "mobile": True})
    try:
        page.open(server.url)
        assert page.run("document.documentElement.scrollWidth") == 360
    finally:
        page.driver.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})


def test_the_master_serves_the_page(chromium, tmp_path):
    port_file = tmp_path / "port"
    master = subprocess.Popen([
        sys.executable,
        str(ROOT / "flq_master.py"), "--port", "0", "--port_file",
        str(port_file), "--run_dir",
        str(tmp_path / "run"), "--token_file",
        str(tmp_path / "token"), "--set", f"logging.log_dir={tmp_path / 'logs'}"
    ], cwd=str(tmp_path))
    try:
        while not port_file.exists():
            assert master.poll() is None
            time.sleep(0.1)
        page = Page(chromium)
        page.open(f"http://127.0.0.1:{port_file.read_text().strip()}/")
        assert page.text("#phase") == "Waiting for workers"
        assert page.texts("dd") == ["–", "–", "–", "0 / 4", "0"]
        assert page.texts("#workers td") == ["No worker has registered yet"]
        assert page.complaints() == []
    finally:
        chromium.get("about:blank")
        master.terminate()
        assert master.wait(60) == 0


class Markup(html.parser.HTMLParser):
    def __init__(self):
        super().__init__()
        self.tags = []

    def handle_starttag(self, tag, attributes):
        self.tags.append((tag, dict(attributes)))


def test_the_page_has_no_inline_code_and_names_no_other_host():
    markup = Markup()
    markup.feed((PAGE / "index.html").read_text(encoding="utf-8"))
    for tag, attributes in markup.tags:
        assert tag != "style"
        assert tag != "script" or attributes["src"]
        assert not [name for name in attributes if name == "style" or name.startswith("on")]
        for name in {"src", "href"} & set(attributes):
            assert (PAGE.parent / attributes[name]).is_file()
    for path in PAGE.iterdir():
        text = path.read_text(encoding="utf-8")
        assert set(re.findall(r"https?://[^\s\"']+", text)) <= {"http://www.w3.org/2000/svg"}
        assert not re.search(r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|\beval\b",
                             text)
