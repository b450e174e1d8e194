"""Chromium: how it is started, one for the tests of a module, and what a test reads of the live
page.
"""

import shutil
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PAGE = ROOT / "flq" / "master" / "http" / "page"
CHROMIUM = shutil.which("chromium") or shutil.which("google-chrome")
CHROMEDRIVER = shutil.which("chromedriver")
WAIT_S = 60  # the page asks every second, and every 3 s while nobody answers


def start_chromium(*arguments, language="en-GB", logs=()):
    """Chromium without a window, as Selenium's driver, which a `with` block ends. logs: what the
    driver keeps for get_log, such as "browser", the console.
    """
    from selenium import webdriver
    from selenium.webdriver.chrome.service import Service

    options = webdriver.ChromeOptions()
    options.binary_location = CHROMIUM
    for argument in ("--headless=new", "--no-sandbox", "--disable-dev-shm-usage",
                     "--window-size=1200,1000", *arguments):
        options.add_argument(argument)
    options.add_experimental_option("prefs", {"intl.accept_languages": language})
    options.set_capability("goog:loggingPrefs", dict.fromkeys(logs, "ALL"))
    return webdriver.Chrome(options=options, service=Service(CHROMEDRIVER))


def skip_without_chromium():
    """Skip the test where the browser, or Selenium, is not installed."""
    pytest.importorskip("selenium", reason="the browser test needs selenium: pip install selenium")
    if not (CHROMIUM and CHROMEDRIVER):
        pytest.skip("no Chromium with its driver here: apt install chromium chromium-driver")


@pytest.fixture(scope="module")
def chromium():
    skip_without_chromium()
    with start_chromium(logs=("browser",)) as driver:
        yield driver


class Page:
    """The open page, read by CSS selectors."""

    def __init__(self, driver):
        self.driver = driver

    def open(self, url):
        self.driver.get_log("browser")  # forgets what earlier pages complained of
        self.driver.get(url)
        self.wait(lambda: self.text("#phase"))

    def leave(self):
        self.driver.get("about:blank")  # nobody asks a server that has gone

    def wait(self, condition):
        from selenium.webdriver.support.ui import WebDriverWait

        WebDriverWait(self.driver, WAIT_S, 0.1).until(lambda _: condition())

    def run(self, script, *arguments):
        return self.driver.execute_script("return " + script, *arguments)

    def command(self, name, **arguments):
        """One of Chromium's own: what it shows itself as."""
        return self.driver.execute_cdp_cmd(name, arguments)

    def text(self, selector):
        return self.run("document.querySelector(arguments[0]).textContent", selector)

    def texts(self, selector):
        return self.run(
            "[...document.querySelectorAll(arguments[0])].map((node) => node.textContent)",
            selector)

    def is_shown(self, selector):
        return self.run("document.querySelector(arguments[0]).checkVisibility()", selector)

    def chart(self, name):
        """What a chart says to who cannot see it: {label: (number of values, last value)}."""
        label = self.run("document.getElementById(arguments[0]).ariaLabel", name + "-chart")
        found = {}
        for part in label.partition(": ")[2].split(", "):
            series, _, rest = part.partition(" (")
            count, _, last = rest.partition(") ")
            found[series] = (int(count), last)
        return found

    def rows(self):
        """The table of workers: a list of texts for each."""
        return self.run("[...document.querySelectorAll('#workers tr')].map((row) => "
                        "[...row.cells].map((cell) => cell.textContent))")

    def click(self, selector):
        self.run("document.querySelector(arguments[0]).click()", selector)

    def fill(self, selector, text):
        """Type into a field and send its form."""
        from selenium.webdriver.common.by import By
        from selenium.webdriver.common.keys import Keys

        field = self.driver.find_element(By.CSS_SELECTOR, selector)
        field.clear()
        field.send_keys(text + Keys.ENTER)

    def complaints(self, but=()):
        """Errors and warnings of the console, without those that contain a text of `but`."""
        return [entry["message"] for entry in self.driver.get_log("browser")
                if entry["level"] in ("SEVERE", "WARNING")
                and not any(text in entry["message"] for text in but)]
