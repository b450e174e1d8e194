"""A whole run under TLS, with a master that is killed in between, and the ways in which trust is
missing.
"""

import shutil
import sys

import pytest

from flq.master.http.certificates import make_certificates
from tests.system.processes import history_of
from tests.system.quadratic import simulate_here
from tests.system.test_bad_processes import check_end

pytestmark = pytest.mark.skipif(
    shutil.which("openssl") is None, reason="openssl is not on this machine")

RUN = ("total_workers=2", "max_rounds=12", "mode=laq", "quorum=all")


@pytest.fixture(scope="module")
def pair(tmp_path_factory):
    ca, _, server, key = make_certificates(str(tmp_path_factory.mktemp("certs")), ["127.0.0.1"])
    return str(ca), ("--certfile", str(server), "--keyfile", str(key))


def test_a_run_survives_its_master_and_ends_as_every_other(own_site, pair, tmp_path):
    cafile, tls = pair
    first = own_site.master(*RUN, options=tls + ("--exit_when_done",),
                            FLQ_CRASH_AT="commit.after:5")
    url, port = f"https://127.0.0.1:{first.port}", first.port
    workers = [own_site.worker(m, first, "--cafile", cafile, url=url) for m in range(2)]
    assert first.wait() != 0
    again = own_site.master(*RUN, options=tls + ("--exit_when_done",), name="again",
                            run_dir=first.run_dir.name, port=port)
    assert [worker.wait() for worker in workers] + [again.wait()] == [0, 0, 0]
    assert history_of(first.run_dir)[0] == simulate_here(tmp_path / "same", RUN)[0]


def test_without_trust_nothing_is_sent(own_site, pair, tmp_path):
    cafile, tls = pair
    stranger = str(make_certificates(str(tmp_path / "other"), ["127.0.0.1"])[0])
    master = own_site.master(*RUN, options=tls)
    url = f"https://127.0.0.1:{master.port}"
    by_nobody = own_site.worker(0, master, url=url, name="nobody")
    by_stranger = own_site.worker(0, master, "--cafile", stranger, url=url, name="stranger")
    other_name = own_site.worker(0, master, "--cafile", cafile,
                                 url=url.replace("127.0.0.1", "localhost"), name="name")
    in_the_clear = own_site.worker(0, master, url=url.replace("https", "http"), name="clear")
    ca_in_the_clear = own_site.worker(0, master, "--cafile", cafile,
                                      url=url.replace("https", "http"), name="ca_clear")
    no_file = own_site.worker(0, master, "--cafile", "none.pem", url=url, name="file")
    for worker in (by_nobody, by_stranger, other_name):
        check_end(worker, 2, "error: the certificate of https://", "is not trusted")
    check_end(in_the_clear, 3, "error: ", "this master speaks TLS only", "https://")
    check_end(ca_in_the_clear, 2, "error: a CA file cannot protect an address without TLS")
    check_end(no_file, 2, "error: cannot use the CA file none.pem")
    plain = own_site.master(*RUN, options=(), name="plain")
    astray = own_site.worker(0, plain, "--cafile", cafile, url=f"https://127.0.0.1:{plain.port}",
                             name="astray")
    astray.wait_for_text("is the master running with --certfile")


def test_the_command_line_makes_what_master_and_workers_need(own_site):
    made = own_site.start("certs", sys.executable, "-m", "flq", "certs", "127.0.0.1", "nano.local",
                          "--out", "certs")
    assert made.wait() == 0
    assert "--certfile certs/server.pem --keyfile certs/server.key" in made.text(
    ) and "--cafile certs/ca.pem" in made.text()
    master = own_site.master(
        *RUN, options=("--certfile", "certs/server.pem", "--keyfile", "certs/server.key"))
    status = own_site.start("status", sys.executable, "-m", "flq", "status", "--master_url",
                            f"https://127.0.0.1:{master.port}", "--cafile", "certs/ca.pem")
    assert status.wait() == 0 and '"phase": "WAITING"' in status.text()
    clear = own_site.start("clear", sys.executable, "-m", "flq", "status", "--master_url",
                           f"http://127.0.0.1:{master.port}", "--cafile", "certs/ca.pem")
    assert clear.wait() == 2 and clear.text().startswith(
        "error: a CA file cannot protect an address without TLS")
