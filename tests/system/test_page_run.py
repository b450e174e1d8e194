"""The live page of real masters: it follows a run, a dead worker is seen and gone on without, and a
master that dies comes back.
"""

import signal

import pytest

from tests.system.browser import Page, chromium  # noqa: F401  (the fixture)
from tests.system.processes import wait_until

UNREACHABLE = ("Failed to load resource", "no answer:", "ERR_CONNECTION_REFUSED")


@pytest.fixture
def page(chromium):  # noqa: F811
    page = Page(chromium)
    yield page
    page.leave()


def test_a_master_without_workers_shows_its_page(own_site, page):
    master = own_site.master("total_workers=4", options=())
    page.open(master.url)
    page.wait(lambda: page.text("#phase") == "Waiting for workers")
    assert page.texts("#overview dd") == ["–", "–", "–", "0 / 4", "0"]
    assert page.texts("#workers td") == ["No worker has registered yet"]
    assert page.complaints() == []


def test_a_run_from_its_first_round_to_its_last_with_two_deaths(own_site, page):
    settings = ("total_workers=3", "max_rounds=1000000", "quorum=all", "worker_timeout_s=9",
                "model.name=softmax")
    master = own_site.master(*settings, options=())
    own_site.worker("0-1", master, SECONDS_OF_TRAINING="0.1")
    victim = own_site.worker("2", master, SECONDS_OF_TRAINING="0.1")
    page.open(master.url)
    page.wait(lambda: page.chart("accuracy").get("test", (0,))[0] >= 3)
    page.wait(lambda: len(page.rows()) == 3 and page.text("#eta") != "–")
    assert page.complaints() == []

    victim.end(signal.SIGKILL)
    page.wait(lambda: page.is_shown("#stall"))
    assert "Waiting for worker 2 (quadratic, last heard" in page.text("#stall-text")
    assert page.rows()[0][:2] == ["2 (quadratic)", "lost"] and page.text("#eta") == "–"
    assert "waiting for worker 2 (quadratic), last heard" in master.text()
    page.click("#unlock")
    page.wait(lambda: page.is_shown("#ask-token"))
    page.fill("#token", master.secret)
    page.wait(lambda: page.is_shown("#go-on"))
    page.click("#go-on")
    page.wait(lambda: page.is_shown("#ask-sure"))
    page.click("#sure-yes")
    page.wait(lambda: page.text("#said") == "Worker 2 was removed.")
    page.wait(lambda: not page.is_shown("#stall") and page.text("#eta") != "–")
    page.wait(lambda: any("worker 2 was removed (by owner)" in text
                          for text in page.texts("#events li")))

    page.click("#pause")
    page.wait(lambda: page.text("#phase") == "Paused" and page.text("#pause") == "Resume")
    assert page.text("#eta") == "–"
    port, rounds = master.port, master.status()["current_round"]
    master.end(signal.SIGKILL)
    page.wait(lambda: page.text("#away").startswith("The master does not answer"))
    again = own_site.master(*settings, name="again", port=port, run_dir=master.run_dir,
                            options=())
    page.wait(lambda: not page.is_shown("#away"))
    assert page.text("#phase") == "Paused" and page.text("#round").startswith(f"Round {rounds} /")
    page.click("#pause")  # the page still has the token
    page.wait(lambda: page.text("#said") == "Resumed.")
    again.wait_for_round(rounds + 1)

    end = again.status()["current_round"] + 30
    assert again.order("PATCH", "/config", {"max_rounds": end}).status_code == 200
    wait_until(lambda: again.status()["phase"] == "FINISHED", "the run is over")
    page.wait(lambda: page.text("#over").startswith(f"The run has finished: {end} rounds"))
    assert page.chart("loss")["test"][0] == end and page.text("#eta") == "0 s"
    again.end(signal.SIGTERM)
    page.wait(lambda: page.text("#away").startswith("The master has ended."))
    assert page.complaints(but=UNREACHABLE) == []
