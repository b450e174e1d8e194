"""Pictures of the live page for the documents: real masters and workers, a real browser.

    python -m scripts.screenshots [--out docs/screenshots] [--only live,dead]

Needs the packages of requirements-dev.txt, Chromium and fonts (Debian: apt install chromium
chromium-driver fonts-noto-cjk; without the fonts the Chinese page shows boxes). Takes some minutes.
"""

import argparse
import base64
import contextlib
import io
import tempfile
import time
from pathlib import Path

from tests.system.browser import start_chromium
from tests.system.processes import ROOT, Site, wait_until

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
        self._site = Site(Path(folder))
        self._master = self._site.master(*settings, script=(ROOT / "flq_master.py",), options=(),
                                         run_dir="20261130-run")
        self.url = self._master.url
        self.workers = [self._site.worker(ids, self._master, script=(ROOT / "flq_worker.py",))
                        for ids in workers]

    def wait_for(self, condition, what):
        """Until condition(status) is true."""
        wait_until(lambda: condition(self._master.status()), what, PATIENCE_S)

    def close(self):
        self._site.close()


@contextlib.contextmanager
def started(settings, workers):
    """A run that ends with the block."""
    with tempfile.TemporaryDirectory() as folder, contextlib.closing(
            Run(folder, settings, workers)) as run:
        yield run


class Browser:
    """Chromium without a window, in one language and colour scheme at a time."""

    def __init__(self, language="en-GB"):
        self._driver = start_chromium("--hide-scrollbars", language=language)

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
        run.wait_for(lambda status: status["current_round"] >= 25, "curves can be seen")
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
            run.wait_for(lambda status: status["stall"] is not None, "somebody is missed")
            browser.shoot(run.url, out / "dead.png")


def many_workers(out):
    with started(MANY, ["0-63"]) as run, contextlib.closing(Browser()) as browser:
        run.wait_for(lambda status: status["current_round"] >= 20, "curves can be seen")
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
