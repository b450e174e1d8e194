"""The live page in a real browser, from a server whose answers the test decides.

tests/system/test_page_run.py has real masters.
"""

import html.parser
import json
import re
import threading

import pytest

from flq.master.http import openapi
from flq.master.http.http_api import PAGE_HEADERS
from tests.system.browser import PAGE, Page, chromium  # noqa: F401  (the fixture)

HOSTILE = "<img src=x onerror=\"document.title='hacked'\">"
TOKEN = "0123456789abcdef" * 4
VIEWER = "viewers"
BUTTONS = ("#pause", "#stop", "#change")
REFUSED = {"error": "bad_value", "message": "model.lr cannot take this value", "expected":
           "a number", "got": "x", "hint": None}


class Server:
    """Serves the page as the master does, the status and history that the test sets, and notes
    what an operator asks for."""

    def __init__(self):
        import flask

        self.runs = self.port = 0
        self.has_ended = False
        self.begin()
        self.app = app = flask.Flask(__name__, static_folder=str(PAGE), static_url_path="/page")
        app.add_url_rule("/", "index", lambda: app.send_static_file("index.html"))
        app.add_url_rule("/status", "status", self._status)
        app.add_url_rule("/history", "history", self._history)
        app.add_url_rule("/events", "events", lambda: {"events": [
            event for event in self.events if event["round"] >= int(flask.request.args["since"])]})
        app.add_url_rule("/openapi.json", "openapi", openapi.document)
        app.add_url_rule("/config", "config", self._config)
        app.add_url_rule("/whoami", "whoami", self._who_am_i)
        app.add_url_rule("/<path:path>", "operator", self._operator, methods=["POST", "PATCH"])
        app.after_request(self._add_headers)
        self._flask = flask

    def begin(self):
        """Another run, of which three rounds are done."""
        self.runs += 1
        self.run_id = f"digits-{self.runs}-x"
        self.status, self.rounds, self.events = status(3), [record(k) for k in range(3)], []
        self.config_is_open, self.asked = True, []

    def _status(self):
        if self.has_ended:
            return "", 503
        shown = {"run_id": self.run_id, **self.status}
        return as_json({"news": str(hash(json.dumps(shown))), **shown})

    def _history(self):
        since, limit = (int(self._flask.request.args[name]) for name in ("since", "limit"))
        return as_json({"rounds": self.rounds[since:since + limit]})

    def _authorized(self, *tokens):
        given = self._flask.request.headers.get("Authorization")
        return given in {"Bearer " + token for token in (TOKEN, *tokens)}

    def _who_am_i(self):
        if not self._authorized(VIEWER):
            return {"error": "unauthorized", "message": "this needs the operator's token"}, 401
        return {"role": "operator", "name": "ann"} if self._authorized() else {
            "role": "viewer", "name": "bob"}

    def _config(self):
        if not self.config_is_open and not self._authorized(VIEWER):
            return {"error": "unauthorized", "message": "a token is missing"}, 401
        return {"model": {"lr": 0.125}, "system": {"quorum": HOSTILE}}

    def _operator(self, path):
        request = self._flask.request
        if not self._authorized():
            return {"error": "unauthorized", "message": "this needs the operator's token"}, 401
        body = json.loads(request.data) if request.data else None
        self.asked.append((request.method, path, body))
        self.has_ended = path == "stop"
        if body == {"model.lr": "x"}:
            return REFUSED, 422
        if request.method == "PATCH":
            return {"effective_round": 3, "changed": {
                key: {"old": None, "new": value} for key, value in body.items()}}
        return {"pause": {"status": "paused"}, "resume": {"status": "running"}, "stop": {
            "status": "stopped", "results_saved": True, "results": "results/run-1"}}.get(
                path, {"status": "removed", "worker": 2})

    @staticmethod
    def _add_headers(response):
        response.headers.update(PAGE_HEADERS)
        return response

    def start(self):
        from werkzeug.serving import make_server

        self.has_ended = False
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


def as_json(document):
    """1e999 is JSON, and infinite for a browser; Python would write the word Infinity, which is
    none.
    """
    return json.dumps(document).replace("Infinity", "1e999"), {"Content-Type": "application/json"}


NANO = {"host": "nano-b", "model": "NVIDIA Jetson Nano Developer Kit", "jetpack": "4.6",
        "memory_mb": 3964, "temperature_c": 53.6}


def worker(number, **changes):
    return dict({
        "state": "training", "cohort": 0, "last_seen_s": 1.5, "round": 2, "loss": 0.5, "clock": 0,
        "skipped": 0, "refused": 1, "uploads": 3, "missing": 0, "bits_up": 250 * number,
        "bits_down": 12345678, "device": {}
    }, **changes)


def status(rounds, **changes):
    bits = {
        "nominal": 400 * rounds, "payload": 500 * rounds, "wire": None, "float32": 4000 * rounds
    }
    return dict({
        "phase": "BIDDING", "paused": False, "stopped": False, "mode": "laq",
        "dataset": "digits", "model": "cnn_small", "current_round": rounds, "cohort": 0,
        "cohorts": 1, "max_rounds": 30, "connected_workers": 2, "total_workers": 3,
        "pending_updates": 1, "pending_tests": 0, "accuracy": 0.9125, "loss": 0.2841,
        "aggregation": "mean", "updates_needed": 1, "updates_seen": None,
        "eta_s": 95.0, "stall": None, "error": None, "bits": {"up": bits, "down": bits},
        "worker_status": {
            "10": worker(10, device=NANO),
            "2": worker(2, state="refused", loss=None, last_seen_s=None, missing=41)
        }
    }, **changes)


def record(round_, **changes):
    return dict(
        {
            "round": round_, "accuracy": 0.5 + round_ / 100, "loss": 2.0 / (round_ + 1),
            "train_loss": 2.1 / (round_ + 1), "round_time_s": 0.25, "selected": [2, 10],
            "skipped": [], "refused": [0], "missing": [1], "payload_bits_up": 1000,
            "payload_bits_down": 500, "float32_bits_up": 8000, "float32_bits_down": 4000
        }, **changes)


def event(round_, name, number=None, key=None, by=None):
    return {"round": round_, "event": name, "worker": number, "key": key, "by": by}


@pytest.fixture(scope="module")
def site(chromium):  # noqa: F811
    """The server and the page, which stays open from test to test."""
    server, page = Server(), Page(chromium)
    server.start()
    page.open(server.url)
    yield server, page
    page.leave()
    server.stop()


@pytest.fixture
def server(site):
    """The server with a run of its own."""
    server = site[0]
    server.begin()
    return server


@pytest.fixture
def page(site, server):
    """The page that has found the test's run."""
    page = site[1]
    page.wait(lambda: server.run_id in page.text("#run"))
    page.complaints()
    return page


@pytest.fixture
def fresh(page, server):
    """The same page, loaded again: it remembers nothing of what was done with it."""
    page.run("localStorage.clear()")
    page.open(server.url)
    page.wait(lambda: page.text("#round"))
    return page


# --- what is shown


def test_the_run_is_shown(page, server):
    assert page.run("document.title") == "3/30 FLQ"
    assert page.text("#run") == f"digits, cnn_small, laq ({server.run_id})"
    assert page.text("#phase") == "Workers are training"
    assert page.text("#round") == "Round 3 / 30"
    assert page.run("document.querySelector('#progress').position") == pytest.approx(0.1)
    assert page.texts("#overview dd")[:2] == ["91.25 %", "0.2841"]
    assert re.fullmatch("1 min 3[1-5] s", page.text("#eta"))
    assert page.texts("#overview dd")[3:] == ["2 / 3", "1"]
    assert page.chart("accuracy") == {"test": (3, "52.00 %")}
    assert page.chart("loss") == {"test": (3, "0.6667"), "training": (3, "0.7")}
    assert page.chart("time") == {"time": (3, "0.25 s")}
    assert page.chart("answers") == {"Missing": (3, "1"), "Refused": (3, "1"), "Skipped": (3, "0"),
                                     "Selected": (3, "2")}
    assert page.chart("bits") == {"as sent": (3, "52.00 %"), "as float32": (3, "52.00 %")}
    assert not any(map(page.is_shown, ["#away", "#error", "#stall", "#over", "#too-few"]))
    assert page.complaints() == []


def test_bits_stand_against_float32(page):
    assert page.texts("#bits-up span") == [
        "float32", "12.0 kbit", "", "nominal", "1.20 kbit", "10.0× less", "payload", "1.50 kbit",
        "8.0× less"
    ]
    widths = page.run(
        "[...document.querySelectorAll('#bits-down rect')].map((bar) => bar.getAttribute('width'))")
    assert widths == ["100.00%", "10.00%", "12.50%"]


def test_workers_come_in_the_order_of_their_numbers_with_what_their_machine_is(page):
    first, second = page.rows()
    assert first == ["2", "refused", "never", "3", "–", "3", "41", "0", "1", "500 bit",
                     "12.3 Mbit", ""]
    assert second[:2] == ["10 (nano-b)", "training"] and second[2] in ("2 s ago", "3 s ago")
    assert second[-1] == "Jetson Nano, JetPack 4.6, 4 GB, 54 °C"
    assert "memory_mb: 3964" in page.run("document.querySelector('#workers td[title]:not("
                                         "[title=\"\"])').title")


@pytest.mark.parametrize("device, text", [
    ({"machine": "x86_64", "memory_mb": 16000, "gpus": []}, "x86_64, 16 GB"),
    ({"gpus": ["GTX 1080"], "memory_mb": 512}, "GTX 1080, 512 MB"),
    ({"model": HOSTILE, "memory_mb": "much", "temperature_c": 1e308, "jetpack": [5, None]},
     HOSTILE + ", JetPack [5,null]"), ({"model": "x" * 200}, "x" * 79 + "…"), (None, ""), (7, ""),
    ({"temperature_c": -4.4}, "-4 °C")], ids=["pc", "gpu", "hostile", "long", "none", "number",
                                              "cold"])
def test_a_device_reads(page, server, device, text):
    server.status = status(3, worker_status={"0": worker(0, device=device)})
    page.wait(lambda: [row[-1] for row in page.rows()] == [text])


def test_what_workers_say_is_text(page, server):
    bad = worker(2, state=HOSTILE, device={HOSTILE: HOSTILE, "deep": {"x": HOSTILE},
                                           "host": HOSTILE})
    server.events = [event(1, HOSTILE, HOSTILE, HOSTILE)]
    server.status = status(3, worker_status={"0": bad}, error=HOSTILE, run_id=HOSTILE,
                           phase=HOSTILE, dataset=HOSTILE)
    page.wait(lambda: HOSTILE in page.text("#error"))
    assert page.texts("#workers td")[1] == page.text("#phase") == HOSTILE
    assert page.texts("#events li") == [f"Round 2: {HOSTILE}"]
    assert page.run("document.images.length") == 0
    assert page.run("document.title") == "3/30 FLQ"
    assert page.complaints() == []


def test_whose_turn_it_is_counts_from_one(page, server):
    server.status = status(3, cohort=1, cohorts=2, worker_status={"1": worker(1, cohort=1)})
    page.wait(lambda: page.text("#round") == "Round 3 / 30 · cohort 2 of 2")
    assert page.rows()[0][:3] == ["1", "2", "training"]
    server.status = status(30, phase="FINISHED", cohort=0, cohorts=2)
    page.wait(lambda: page.text("#round") == "Round 30 / 30")


def test_new_rounds_and_late_test_results_appear(page, server):
    server.rounds = [record(0), record(1), record(2, accuracy=None), record(3, accuracy=None)]
    server.status = status(4, pending_tests=2)
    page.wait(lambda: page.text("#round") == "Round 4 / 30" and page.chart("loss")["test"][0] == 4)
    assert page.chart("accuracy")["test"] == (2, "51.00 %")
    server.rounds = [record(k) for k in range(4)]
    server.status = status(4, accuracy=0.53)
    page.wait(lambda: page.chart("accuracy")["test"] == (4, "53.00 %"))


def test_another_run_starts_new_curves(page, server):
    server.rounds = [record(0, train_loss=None)]
    server.status = status(1, run_id="digits-2")
    page.wait(lambda: page.chart("accuracy")["test"][0] == 1)
    assert page.chart("loss")["training"] == (0, "–")


def test_a_run_without_rounds_or_workers(page, server):
    server.rounds = []
    server.status = status(0, phase="WAITING", accuracy=None, loss=None, eta_s=None,
                           worker_status={})
    page.wait(lambda: page.text("#phase") == "Waiting for workers")
    assert page.texts("#overview dd") == ["–", "–", "–", "2 / 3", "1"]
    assert page.text("#accuracy-chart") == page.text("#bits-chart") == "No round was tested yet"
    assert page.text("#time-chart") == "No round has closed yet"
    assert page.texts("#workers td") == ["No worker has registered yet"]
    assert page.complaints() == []


def test_events_are_listed_the_newest_first(page, server):
    server.events = [event(0, "join", 2), event(1, "config", key="model.lr"),
                     event(2, "remove", 10), event(2, "pause"), event(2, "later")]
    server.status = status(3, run_id="digits-with-events")
    page.wait(lambda: page.texts("#events li") == [
        "Round 3: later", "Round 3: paused", "Round 3: worker 10 was removed",
        "Round 2: model.lr was changed", "Round 1: worker 2 joined"])
    assert page.text("#events-count") == "(5)"


def test_a_link_leads_to_each_form_of_the_numbers(page):
    links = page.run("[...document.querySelectorAll('.links a')].map((link) => "
                     "link.getAttribute('href'))")
    assert links == ["history?format=csv", "status", "metrics", "openapi.json"]


# --- any numbers

NUMBERS = [(1.0, 1.0 + 2**-52), (1.0, 1.0), (0.0, 0.0), (1e16, 1e16 + 2), (-1e-9, 1e-300),
           (0.0, 5e-324), (-1e300, 1.0, 1e300), (float("inf"), float("-inf"), 1.0),
           (float("inf"),), (1e-6, 1e6), (0.3, 0.1 + 0.2), (None, None), ("1", {}, [3], True),
           (-5.0, -5.5), (1e199, -1e199)]


@pytest.mark.parametrize("values", NUMBERS, ids=str)
def test_any_values_give_charts(page, server, values):
    numbers = [value for value in values if type(value) is float and abs(value) <= 1e200]
    names = ("accuracy", "loss", "train_loss", "round_time_s", "payload_bits_up",
             "float32_bits_up")
    server.rounds = [record(k, **dict.fromkeys(names, value))
                     for k, value in enumerate(values)]
    server.status = status(len(values), run_id="digits-2", mode=str(values))
    page.wait(lambda: str(values) in page.text("#run"))
    assert page.chart("loss")["test"][0] == len(numbers)
    assert page.is_shown("#loss-chart figcaption") != bool(numbers) or numbers
    assert page.run("document.querySelectorAll('#loss-chart canvas').length") == bool(numbers)
    assert page.complaints() == []


def test_the_ticks_of_any_axis_are_few(page):
    ticks = page.driver.execute_async_script(
        "const [pairs, done] = arguments; import('/page/charts.js').then(({ ticks }) => "
        "done(pairs.map(([low, high]) => ticks(low, high, 5))))",
        [[low, high] for low, high in [(0.0, 0.0), (1.0, 1.0 + 2**-52), (-1e200, 1e200),
                                       (1e16, 1e16 + 2), (0.0, 5e-324), (-3.0, -3.0),
                                       (0.1, 0.92), (1e199, 1e200)]])
    for found in ticks:
        assert 2 <= len(found) <= 8 and found == sorted(set(found))


@pytest.mark.parametrize("value", [1e308, -1e308, 1e999, -1, 0, None, "many", [1], {"a": 1}, 0.5],
                         ids=str)
def test_any_value_of_the_status_is_shown_somehow(page, server, value):
    numbers = dict.fromkeys(("current_round", "max_rounds", "accuracy", "loss", "eta_s",
                             "pending_updates", "pending_tests", "connected_workers", "cohort",
                             "cohorts"), value)
    bits = dict.fromkeys(("nominal", "payload", "wire", "float32"), value)
    one = dict.fromkeys(set(worker(0)) - {"state", "device"}, value)
    server.status = status(3, mode="any " + str(value), bits={"up": bits, "down": bits},
                           worker_status={"0": dict(worker(0), **one)}, **numbers)
    page.wait(lambda: "any" in page.text("#run"))
    assert page.is_shown("#workers td") and page.complaints() == []
    server.status = status(3)
    page.wait(lambda: page.text("#round") == "Round 3 / 30")


# --- who is missing, and the end


def stall(**changes):
    return dict({"workers": [10], "text": "waiting", "waited_s": 70.0, "goes_on_in_s": None,
                 "remove": [10], "change": {}}, **changes)


def lost(**changes):
    return status(3, eta_s=None, stall=stall(**changes), worker_status={
        "2": worker(2, state="waiting"), "10": worker(10, state="lost", last_seen_s=61.0,
                                                      device=NANO)})


def test_a_lost_worker_stands_out_and_there_is_no_time_left(page, server):
    server.status = lost()
    page.wait(lambda: page.is_shown("#stall"))
    assert re.fullmatch(r"Waiting for worker 10 \(nano-b, last heard 1 min [1-9] s ago\)\.",
                        page.text("#stall-text"))
    assert page.text("#go-on") == "Continue without worker 10"
    assert page.run("document.title") == "⚠ 3/30 FLQ" and page.text("#eta") == "–"
    assert page.texts("#overview dd")[3] == "1 / 3"
    assert [row[:2] for row in page.rows()] == [["10 (nano-b)", "lost"], ["2", "waiting"]]
    assert page.run("document.querySelector('#workers tr').className") == "lost"
    first = page.text("#stall-text")
    page.wait(lambda: page.text("#stall-text") != first)  # it goes on counting
    server.status = status(3)
    page.wait(lambda: not page.is_shown("#stall"))


@pytest.mark.parametrize("changes, words, button", [
    ({"goes_on_in_s": 25.0, "remove": []}, "goes on without them in 2[0-5] s at the latest.", ""),
    ({"remove": []}, "Nobody else is there to continue with: start them.", ""),
    ({"workers": list(range(10, 30))}, "Waiting for workers 10 .*, 12 .*, 13 .* and 16 more.",
     "Continue without them"),
    ({"remove": [], "change": {"system.min_workers": 2}}, "Waiting for worker 10 ",
     "Continue without worker 10")], ids=["deadline", "nobody", "many", "number"])
def test_the_banner_says_how_it_goes_on(page, server, changes, words, button):
    server.status = lost(**changes)
    page.wait(lambda: page.is_shown("#stall"))
    assert re.search(words, page.text("#stall-text")), page.text("#stall-text")
    assert (page.text("#go-on") if page.is_shown("#go-on") else "") == button


def test_a_rule_that_had_too_few_updates_is_seen_until_it_has_enough(page, server):
    few = {"aggregation": "median", "updates_needed": 5, "updates_seen": 2}
    server.status = status(3, **few)
    page.wait(lambda: page.is_shown("#too-few"))
    fact = ("The last round left the model as it was: median needs the updates of 5 workers and "
            "had those of 2.")
    assert page.text("#too-few") == fact + (
        " It goes on by itself when more come, or with a smaller flq_algorithm.bad_workers.")
    page.click("#language")
    assert page.text("#too-few") == (
        "上一轮没有改变模型：median 需要 5 个节点的更新，只有 2 个。"
        "有足够的更新或调小 flq_algorithm.bad_workers 后会自动继续。")
    page.click("#language")
    server.status = status(4, **dict(few, updates_seen=5))
    page.wait(lambda: page.text("#round") == "Round 4 / 30")
    assert not page.is_shown("#too-few")
    server.status = status(30, phase="FINISHED", **few)
    page.wait(lambda: page.is_shown("#over"))
    assert page.text("#too-few") == fact, "nothing goes on any more"


def test_a_run_that_is_over_says_so(page, server):
    server.status = status(30, phase="FINISHED", eta_s=0.0, pending_tests=1)
    page.wait(lambda: page.text("#over").endswith("The last model is being tested."))
    server.status = status(30, phase="FINISHED", eta_s=0.0)
    page.wait(lambda: page.text("#over") == "The run has finished: 30 rounds, accuracy 91.25 %.")
    assert page.run("document.getElementById('pause').disabled")
    server.stop()
    page.wait(lambda: page.text("#away").startswith("The master has ended."))
    server.start()


def test_a_stopped_run_says_so(page, server):
    server.status = status(3, phase="FINISHED", stopped=True)
    page.wait(lambda: page.text("#phase") == "Stopped")
    assert page.text("#over").startswith("The run was stopped after 3 rounds")


def test_the_master_may_go_away_and_come_back(page, server):
    server.stop()
    page.wait(lambda: "The master does not answer" in page.text("#away"))
    assert page.text("#round") == "Round 3 / 30"
    server.rounds = [record(k) for k in range(5)]
    server.status = status(5, paused=True)
    server.start()
    page.wait(lambda: page.text("#round") == "Round 5 / 30")
    assert not page.is_shown("#away") and page.text("#phase") == "Paused"
    assert page.chart("loss")["test"][0] == 5


# --- sizes, languages, colours


def test_chinese_is_one_click_away_and_remembered(fresh, server):
    page = fresh
    server.status = lost()
    page.wait(lambda: page.is_shown("#stall"))
    words = "[data-text], #columns th, #phase, .less, #stall-text, #go-on, .pill, #pause, dt"
    english = [text for text in page.texts(words) if not text.startswith(("float32", "lazy"))]
    page.click("#language")
    chinese = page.texts(words)
    assert page.text("#phase") == "工作节点训练中" and page.text("#language") == "English"
    assert page.text("#stall-text").startswith("正在等待节点 10（" if "（" in page.text(
        "#stall-text") else "正在等待节点 10 (nano-b、最近一次联系在")
    assert not {text for text in english if text} & set(chinese) - {"float32"}
    page.open(server.url)
    page.wait(lambda: page.text("#phase") == "工作节点训练中")
    assert "undefined" not in page.run("document.body.innerText")
    page.click("#language")
    assert page.text("#phase") == "Workers are training"


@pytest.mark.parametrize("languages, phase", [("zh-CN,en", "工作节点训练中"),
                                              ("de-DE,zh-TW,en", "工作节点训练中"),
                                              ("fr,en-US,zh", "Workers are training"),
                                              ("de", "Workers are training")])
def test_the_browser_says_which_language(page, server, languages, phase):
    page.run("localStorage.clear()")
    agent = page.run("navigator.userAgent")
    page.command("Emulation.setUserAgentOverride", userAgent=agent, acceptLanguage=languages)
    try:
        page.open(server.url)
        page.wait(lambda: page.text("#phase") == phase)
    finally:
        page.command("Emulation.setUserAgentOverride", userAgent=agent, acceptLanguage="en-GB")
        page.open(server.url)


def test_a_phone_needs_no_sideways_scrolling(page, server):
    server.status = lost()
    server.status["worker_status"]["3"] = worker(3, state="left_out", device={
        "model": "x" * 150, "host": "h" * 60})
    page.command("Emulation.setDeviceMetricsOverride", width=360, height=740, deviceScaleFactor=2,
                 mobile=True)
    try:
        page.open(server.url)
        page.wait(lambda: page.is_shown("#stall"))
        assert page.run("document.documentElement.scrollWidth") == 360
        page.click("#stop")
        assert page.is_shown("#ask-sure")
        assert page.run("document.documentElement.scrollWidth") == 360
        broken = page.run("[...document.querySelectorAll('.pill')].filter((pill) => "
                          "pill.getClientRects().length > 1 || pill.scrollWidth > "
                          "pill.clientWidth + 1).map((pill) => pill.textContent)")
        assert broken == []
    finally:
        page.command("Emulation.clearDeviceMetricsOverride")


@pytest.mark.parametrize("scheme", ["dark", "light"])
def test_words_can_be_read_in_either_scheme(page, server, scheme):
    server.status = lost()
    page.command("Emulation.setEmulatedMedia",
                 features=[{"name": "prefers-color-scheme", "value": scheme}])
    try:
        page.open(server.url)
        page.wait(lambda: page.is_shown("#stall"))
        colors = page.run(
            "[...document.querySelectorAll('h2, dt, dd, td, .pill, button, #stall-text')]"
            ".filter((node) => node.checkVisibility() && node.textContent).map((node) => {"
            "let ground = node; while (getComputedStyle(ground).backgroundColor === "
            "'rgba(0, 0, 0, 0)') { ground = ground.parentElement; } return [node.textContent,"
            "getComputedStyle(node).color, getComputedStyle(ground).backgroundColor]; })")
        assert len(colors) > 20
        for text, ink, ground in colors:
            if ground.startswith("rgb("):  # a mixed one is nearer to the card than the pill's
                assert contrast(ink, ground) >= 4.4, (text, ink, ground)
    finally:
        page.command("Emulation.setEmulatedMedia", features=[])


def contrast(*colors):
    """The contrast of two colours as WCAG 2 counts it."""
    def luminance(color):
        parts = [int(part) / 255 for part in re.findall(r"\d+", color)[:3]]
        linear = [part / 12.92 if part <= 0.03928 else ((part + 0.055) / 1.055)**2.4
                  for part in parts]
        return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]

    low, high = sorted(map(luminance, colors))
    return (high + 0.05) / (low + 0.05)


def many():
    states = ["training", "uploading", "waiting", "skipped", "refused", "slow", "lost", "away"]
    return {str(m): worker(m, state=states[m % 8], loss=None if m == 5 else 64.0 - m, device=dict(
        NANO, host=f"nano-{m}")) for m in range(64)}


def test_64_workers_and_1000_rounds_stay_smooth(page, server):
    everybody = list(range(64))
    server.rounds = [record(k, selected=everybody[:16], refused=everybody[16:60],
                            missing=everybody[60:]) for k in range(1000)]
    server.events = [event(k, "join", k % 64) for k in range(0, 1000, 5)]
    server.status = status(1000, run_id="big", max_rounds=2000, total_workers=64,
                           worker_status=many())
    page.open(server.url)
    page.wait(lambda: page.chart("loss")["test"][0] == 1000 and len(page.rows()) == 64)
    assert page.run("document.querySelector('.scroll').clientHeight") <= 450
    assert page.run("document.documentElement.scrollHeight") < 2500
    page.run("window.longest = 0, window.frames_ = 0, (function tick(before) { "
             "requestAnimationFrame((now) => { window.longest = Math.max(window.longest, "
             "now - before); window.frames_ += 1; tick(now); }); })(performance.now())")
    for k in range(1000, 1003):
        server.rounds.append(record(k, selected=everybody))
        server.status = status(k + 1, run_id="big", max_rounds=2000, total_workers=64,
                               worker_status=many())
        page.wait(lambda: page.chart("loss")["test"][0] == len(server.rounds))
    # no frame stands still: a page that draws everything anew 64 x 1000 times does for seconds
    assert page.run("window.frames_") > 20 and page.run("window.longest") < 1500
    assert page.complaints() == []


def test_workers_are_sorted_by_any_column_and_chosen_by_their_state(fresh, server):
    page = fresh
    server.status = status(3, total_workers=64, worker_status=many())
    page.wait(lambda: len(page.rows()) == 64)
    assert [row[1] for row in page.rows()[:24]] == ["lost"] * 8 + ["slow"] * 8 + ["away"] * 8
    head = "#columns th:nth-child({}) button".format
    page.click(head(5))
    losses = [row[4] for row in page.rows()]
    assert losses[:2] == ["1", "2"] and losses[-1] == "–"
    assert page.run("document.querySelector('#columns th:nth-child(5)').ariaSort") == "ascending"
    page.click(head(5))
    assert [row[4] for row in page.rows()][:2] == ["64", "63"] and page.rows()[-1][4] == "–"
    page.click(head(5))
    assert page.rows()[0][:2] == ["6 (nano-6)", "lost"]
    page.click(".pill.slow")
    assert {row[1] for row in page.rows()} == {"slow"} and len(page.rows()) == 8
    page.click(".pill.slow")
    assert len(page.rows()) == 64 and page.texts("#states .pill")[:2] == ["all 64", "lost 8"]


# --- what an operator does


def test_the_token_is_asked_once_and_kept_nowhere(fresh, server):
    page = fresh
    assert not any(page.is_shown(name) for name in BUTTONS)
    page.click("#unlock")
    page.wait(lambda: page.is_shown("#ask-token"))
    page.fill("#token", "wrong")
    page.wait(lambda: page.is_shown("#token-wrong"))
    page.fill("#token", " " + TOKEN + "\u00e9")  # what no header may carry does not break the page
    page.wait(lambda: page.text("#token") == "" and page.is_shown("#token-wrong"))
    page.fill("#token", TOKEN)
    page.wait(lambda: page.text("#caller") == "operator ann")
    page.click("#pause")
    page.wait(lambda: page.text("#said") == "Paused.")
    assert server.asked == [("POST", "pause", None)] and not page.is_shown("#ask-token")
    server.status = status(3, paused=True)
    page.wait(lambda: page.text("#pause") == "Resume")
    page.click("#pause")
    page.wait(lambda: page.text("#said") == "Resumed.")
    assert page.run("JSON.stringify([localStorage, sessionStorage, document.cookie])").count(
        TOKEN) == 0
    assert TOKEN not in page.run("document.documentElement.outerHTML")
    page.click("#lock")
    page.wait(lambda: not any(page.is_shown(name) for name in BUTTONS))
    page.click("#unlock")
    page.wait(lambda: page.is_shown("#ask-token"))
    page.click("#ask-token .cancel")
    page.wait(lambda: page.text("#said") == "" and not page.is_shown("#ask-token"))
    assert page.complaints(but=["401 (UNAUTHORIZED)"]) == []


@pytest.fixture
def unlocked(fresh, server):
    page = fresh
    page.click("#unlock")
    page.wait(lambda: page.is_shown("#ask-token"))
    page.fill("#token", TOKEN)
    page.wait(lambda: page.is_shown("#pause"))
    return page


def test_a_viewer_sees_the_configuration_and_no_button(fresh, server):
    page = fresh
    server.config_is_open = False
    server.status = lost(workers=[10], remove=[10])
    page.wait(lambda: page.is_shown("#stall"))
    page.click("#configuration-section summary")
    page.click("#unlock")
    page.wait(lambda: page.is_shown("#ask-token"))
    page.fill("#token", VIEWER)
    page.wait(lambda: page.text("#caller") == "viewer bob: may read and change nothing")
    page.wait(lambda: page.texts("#configuration dt") == ["model.lr", "system.quorum"])
    assert not any(page.is_shown(name) for name in (*BUTTONS, "#unlock"))
    assert page.run("document.getElementById('go-on').disabled")
    assert page.texts("#workers tr button") == [] and server.asked == []


def test_an_event_names_its_operator(fresh, server):
    server.events = [event(1, "pause", by="ann"), event(2, "stop", by="<b>eve"),
                     event(2, "resume")]
    server.status = status(3, run_id="digits-by")  # all of another run's events are asked for
    page = fresh
    page.click("#events-section summary")
    page.wait(lambda: page.texts("#events li") == [
        "Round 3: resumed", "Round 3: the run was told to stop (by <b>eve)",
        "Round 2: paused (by ann)"])


def test_who_was_revoked_while_the_page_is_open_is_asked_for_another_token(unlocked, monkeypatch):
    page = unlocked
    monkeypatch.setitem(globals(), "TOKEN", "another")
    page.click("#pause")
    page.wait(lambda: page.is_shown("#token-wrong"))
    page.click("#ask-token .cancel")
    page.wait(lambda: page.is_shown("#unlock") and not page.is_shown("#pause"))


def test_what_is_for_good_is_asked_about_first(unlocked, server):
    page = unlocked
    page.click("#stop")
    assert "for good" in page.text("#sure")
    page.click("#ask-sure .cancel")
    page.click("#workers tr button")
    page.wait(lambda: "worker 2 for good" in page.text("#sure"))
    page.click("#sure-yes")
    page.wait(lambda: page.text("#said") == "Worker 2 was removed.")
    page.click("#stop")
    page.click("#sure-yes")
    page.wait(lambda: page.text("#said").startswith("Stopped. The results are in results/run-1"))
    assert server.asked == [("POST", "workers/2/remove", None), ("POST", "stop", None)]
    server.stop()
    page.wait(lambda: page.text("#away").startswith("The master has ended."))
    server.start()
    page.wait(lambda: not page.is_shown("#away"))
    server.stop()  # of a run that goes on again
    page.wait(lambda: page.text("#away").startswith("The master does not answer"))
    server.start()


def test_a_key_is_changed_and_what_the_master_refuses_is_said(unlocked, server):
    page = unlocked
    page.click("#change")
    page.wait(lambda: page.is_shown("#ask-change"))
    assert "system.min_workers" in page.texts("#change-key option")
    page.run("document.getElementById('change-key').value = 'model.lr'")
    page.run("document.getElementById('change-key').dispatchEvent(new Event('change'))")
    assert page.text("#change-doc").startswith("server learning rate (number, null, 0 … 1000000")
    page.fill("#change-value", "x")
    page.wait(lambda: page.text("#said") == ("Refused: model.lr cannot take this value; expected "
                                             "a number"))
    page.click("#change")
    page.wait(lambda: page.is_shown("#ask-change"))
    page.fill("#change-value", "0.05")
    page.wait(lambda: page.text("#said") == "model.lr: null → 0.05, from round 4 on.")
    assert server.asked == [("PATCH", "config", {"model.lr": "x"}),
                            ("PATCH", "config", {"model.lr": 0.05})]


@pytest.mark.parametrize("changes, asked", [
    ({"workers": [10, 11], "remove": [10, 11]}, [("POST", "workers/10/remove", None),
                                                 ("POST", "workers/11/remove", None)]),
    ({"remove": [], "change": {"system.min_workers": 2}}, [("PATCH", "config",
                                                            {"system.min_workers": 2})])],
                         ids=["remove", "change"])
def test_the_banner_lets_the_run_go_on(unlocked, server, changes, asked):
    server.status = lost(**changes)
    unlocked.wait(lambda: unlocked.is_shown("#go-on"))
    assert not unlocked.run("document.getElementById('go-on').disabled")
    unlocked.click("#go-on")
    unlocked.wait(lambda: unlocked.is_shown("#ask-sure"))
    unlocked.click("#sure-yes")
    unlocked.wait(lambda: server.asked == asked)


def test_the_configuration_is_shown_and_on_a_network_with_the_token_only(fresh, server):
    page = fresh
    page.click("#configuration-section summary")
    page.wait(lambda: page.texts("#configuration dt") == ["model.lr", "system.quorum"])
    assert page.texts("#configuration dd") == ["0.125", json.dumps(HOSTILE)]
    server.config_is_open = False
    page.open(server.url)
    page.click("#configuration-section summary")
    page.wait(lambda: "operator's token only" in page.text("#configuration-note"))
    page.click("#configuration-note button")
    page.wait(lambda: page.is_shown("#ask-token"))
    page.fill("#token", TOKEN)
    page.wait(lambda: page.texts("#configuration dt") == ["model.lr", "system.quorum"])
    assert not page.is_shown("#configuration-note")


# --- the files


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
            assert tag == "a" or (PAGE.parent / attributes[name]).is_file()
            assert "//" not in attributes[name]
    for path in PAGE.iterdir():
        text = path.read_text(encoding="utf-8")
        urls = set(re.findall(r"https?://[^\s\"']+", text))
        if path.name.startswith("uPlot"):
            assert urls <= {"https://github.com/leeoniya/uPlot"}
            continue
        assert urls <= {"http://www.w3.org/2000/svg"}
        assert not re.search(r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|\beval\b",
                             text)


def test_both_languages_have_the_same_words():
    text = (PAGE / "words.js").read_text(encoding="utf-8")
    english, chinese = re.split(r"\n  zh: \{\n", text.split("  en: {\n", 1)[1])

    def names(part):
        return set(re.findall(r"(?:^|[,{] ?)\s*(\w+): (?=[\"`({\[]|\w+ =>)", part, re.MULTILINE))

    # states that are their own words in English
    assert names(english) <= names(chinese)
    assert names(chinese) - names(english) <= {
        "waiting", "training", "uploading", "granted", "refused", "skipped", "done", "away",
        "removed", "lost", "slow"}


def test_the_vendored_library_brings_its_licence():
    licence = (PAGE / "uPlot.LICENSE.txt").read_text(encoding="utf-8")
    assert licence.startswith("The MIT License (MIT)") and "Leon Sorokin" in licence
    assert "(v1.6.32)" in (PAGE / "uPlot.iife.min.js").read_text(encoding="utf-8")[:100]
