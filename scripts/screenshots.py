"""Pictures of the live page for the documents: real masters and workers, a real browser.

    python -m scripts.screenshots [--out docs/screenshots] [--only live,dead]

Needs the packages of requirements-dev.txt, Chromium and fonts (Debian: apt install chromium
chromium-driver fonts-noto-cjk; without the fonts the Chinese page shows boxes). Takes some minutes.
"""

import argparse
import base64
import contextlib
import io
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
import urllib.request
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
LARGEST = 200_000  # bytes of a picture
PATIENCE_S = 600.0
DESKTOP, PHONE = (1200, 1000, 1, False), (390, 844, 2, True)

FOUR = ("system.total_workers=4", "system.quorum=all", "system.max_rounds=120",
        "dataset.partition=non_iid", "flq_algorithm.mode=rd", "flq_algorithm.downlink=rd",
        "system.worker_timeout_s=6", "budget_selection.sel_clients=3")
MANY = ("system.total_workers=64", "system.quorum=deadline", "system.start_workers=64",
        "system.max_rounds=40", "flq_algorithm.mode=bin", "budget_selection.sel_clients=16",
        "model.name=mlp")


class Run:
    """A master and workers as processes in a temporary folder."""

    def __init__(self, folder, settings, workers):
        self._folder, self._processes = Path(folder), []
        self._environment = dict(
            os.environ, HOME=folder, FLQ_TOKEN=str(self._folder / "token"),
            FLQ_STATE_DIR=str(self._folder / "state"), PYTHONPATH=str(ROOT),
            TF_CPP_MIN_LOG_LEVEL="2", CUDA_VISIBLE_DEVICES="")
        port = self._folder / "port"
        self._start("flq_master.py", "--port", "0", "--port_file", port, "--run_dir",
                    self._folder / "20261130-run", *_set(settings + ("save_results=false",)))
        self._wait(port.exists)
        self.url = f"http://127.0.0.1:{port.read_text().strip()}"
        self.workers = [
            self._start("flq_worker.py", "--worker_id", ids, "--master_url", self.url)
            for ids in workers
        ]

    def _start(self, program, *arguments):
        name = f"{len(self._processes):02}-{program}.out"
        with open(self._folder / name, "wb") as output:
            self._processes.append(
                subprocess.Popen([sys.executable, str(ROOT / program), *map(str, arguments)],
                                 cwd=self._folder, env=self._environment, stdout=output,
                                 stderr=subprocess.STDOUT))
        return self._processes[-1]

    def wait_for(self, condition):
        """Until condition(status) is true."""
        self._wait(lambda: condition(self.status()))

    def status(self):
        with urllib.request.urlopen(self.url + "/status") as answer:
            return json.load(answer)

    def _wait(self, condition):
        deadline = time.monotonic() + PATIENCE_S
        while not condition():
            if time.monotonic() > deadline or self._processes[0].poll() is not None:
                raise SystemExit(f"error: the run does not get there; see {self._folder}")
            time.sleep(0.2)

    def close(self):
        for process in self._processes:
            process.kill()
            process.wait()


def _set(settings):
    return [word for setting in settings for word in ("--set", setting)]


@contextlib.contextmanager
def started(settings, workers):
    """A run that ends with the block."""
    with tempfile.TemporaryDirectory() as folder:
        run = Run(folder, settings, workers)
        try:
            yield run
        finally:
            run.close()


class Browser:
    """Chromium without a window, in one language and colour scheme at a time."""

    def __init__(self, language="en-GB"):
        from selenium import webdriver
        from selenium.webdriver.chrome.service import Service

        options = webdriver.ChromeOptions()
        options.binary_location = shutil.which("chromium") or shutil.which("google-chrome") or ""
        for argument in ("--headless=new", "--no-sandbox", "--disable-dev-shm-usage",
                         "--hide-scrollbars", "--window-size=1200,1000"):
            options.add_argument(argument)
        options.add_experimental_option("prefs", {"intl.accept_languages": language})
        self._driver = webdriver.Chrome(options=options,
                                        service=Service(shutil.which("chromedriver")))

    def shoot(self, url, file, size=DESKTOP, dark=False, height=None):
        """The page as it is seen after some seconds; height: more of it than the window shows."""
        width, tall, scale, mobile = size
        self._command("Emulation.setDeviceMetricsOverride", width=width, height=height or tall,
                      deviceScaleFactor=scale, mobile=mobile)
        self._command("Emulation.setEmulatedMedia", features=[
            {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}])
        self._driver.get(url)
        time.sleep(4.0)
        picture = base64.b64decode(self._command("Page.captureScreenshot", format="png")["data"])
        file.write_bytes(_smaller(picture))
        print(f"{file}: {file.stat().st_size // 1000} kB", flush=True)

    def _command(self, name, **arguments):
        return self._driver.execute_cdp_cmd(name, arguments)

    def close(self):
        self._driver.quit()


def _smaller(picture):
    """The same with at most 256 colours, which a page of text and lines has about."""
    from PIL import Image

    packed = io.BytesIO()
    Image.open(io.BytesIO(picture)).convert("RGB").quantize(256, dither=Image.Dither.NONE).save(
        packed, "PNG", optimize=True)
    if packed.tell() > LARGEST:
        raise SystemExit(f"error: a picture of {packed.tell()} bytes; expected {LARGEST} at most")
    return packed.getvalue()


def four_workers(out, wanted):
    """A run of four workers, then with one of them killed."""
    with started(FOUR, range(4)) as run, contextlib.closing(Browser()) as browser:
        run.wait_for(lambda status: status["current_round"] >= 25)
        if "live" in wanted:
            browser.shoot(run.url, out / "live.png", height=1500)
        if "dark" in wanted:
            browser.shoot(run.url, out / "dark.png", dark=True)
        if "phone" in wanted:
            browser.shoot(run.url, out / "phone.png", PHONE, height=1100)
        if "chinese" in wanted:
            with contextlib.closing(Browser("zh-CN")) as chinese:
                chinese.shoot(run.url, out / "chinese.png", height=1500)
        if "dead" in wanted:
            run.workers[2].kill()
            run.wait_for(lambda status: status["stall"] is not None)
            browser.shoot(run.url, out / "dead.png")


def many_workers(out):
    with started(MANY, ["0-63"]) as run, contextlib.closing(Browser()) as browser:
        run.wait_for(lambda status: status["current_round"] >= 20)
        browser.shoot(run.url, out / "64-workers.png")


PICTURES = ("live", "dark", "phone", "chinese", "dead", "64-workers")


def main():
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--out", type=Path, default=ROOT / "docs" / "screenshots")
    parser.add_argument("--only", default=",".join(PICTURES), help="default: %(default)s")
    arguments = parser.parse_args()
    wanted = set(arguments.only.split(","))
    if not wanted <= set(PICTURES):
        parser.error(f"--only: expected some of {','.join(PICTURES)}; got {arguments.only}")
    arguments.out.mkdir(parents=True, exist_ok=True)
    if wanted - {"64-workers"}:
        four_workers(arguments.out, wanted)
    if "64-workers" in wanted:
        many_workers(arguments.out)


if __name__ == "__main__":
    main()
