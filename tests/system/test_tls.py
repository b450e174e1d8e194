"""A whole run under TLS, with a master that is killed in between, and the ways in which trust is
missing.
"""

import json
import shutil
import subprocess
import sys

import pytest

from flq import revoked, tokens
from flq.master.http.certificates import fingerprint_of, make_certificates, make_client
from tests.system.processes import history_of, wait_until
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


# --- certificates of clients


@pytest.fixture(scope="module")
def folder(pair, tmp_path_factory):
    """The authority's folder, with certificates of clients beside the master's."""
    folder = tmp_path_factory.mktemp("clients")
    make_certificates(str(folder), ["127.0.0.1"])
    for name, holders in (("worker-0", ["0"]), ("worker-1", ["1"]), ("both", ["0", "1"]),
                          ("again", ["1"]), ("operator-ann", ["operator-ann"]),
                          ("viewer-bob", ["viewer-bob"]), ("nobody", ["nobody"])):
        make_client(str(folder), name, holders)
    return folder


def _asks(folder, *more):
    """Options of a master that wants certificates."""
    return ("--certfile", folder / "server.pem", "--keyfile", folder / "server.key", "--client_ca",
            folder / "ca.pem", *more)


def _shows(folder, name):
    return ("--cafile", folder / "ca.pem", "--cert", folder / f"{name}.pem", "--key",
            folder / f"{name}.key")


def _curl(folder, master, path, name=None, token=None, method="GET"):
    """(exit code, JSON or None) of the curl of docs/guide/security.md."""
    shown = ("--cert", folder / f"{name}.pem", "--key", folder / f"{name}.key") if name else ()
    done = subprocess.run(["curl", "-sS", "--cacert", folder / "ca.pem", *shown, "-K", "-", "-X",
                           method, f"https://127.0.0.1:{master.port}{path}"],
                          input=f'header = "Authorization: Bearer {token}"' if token else "",
                          capture_output=True, text=True)
    return done.returncode, json.loads(done.stdout) if done.stdout else None


def test_a_run_whose_workers_show_certificates_survives_its_master(own_site, folder, tmp_path):
    settings = RUN
    first = own_site.master(*settings, options=_asks(folder, "--exit_when_done"),
                            FLQ_CRASH_AT="commit.after:5")
    url = f"https://127.0.0.1:{first.port}"
    workers = [own_site.worker(m, first, *_shows(folder, f"worker-{m}"), url=url) for m in range(2)]
    assert first.wait() != 0
    again = own_site.master(*settings, options=_asks(folder, "--exit_when_done"), name="again",
                            run_dir=first.run_dir.name, port=first.port)
    assert [worker.wait() for worker in workers] + [again.wait()] == [0, 0, 0]
    assert history_of(first.run_dir)[0] == simulate_here(tmp_path / "same", settings)[0]


def test_one_certificate_serves_a_process_with_both_workers(own_site, folder):
    master = own_site.master(*RUN, options=_asks(folder, "--exit_when_done"))
    both = own_site.worker("0-1", master, *_shows(folder, "both"),
                           url=f"https://127.0.0.1:{master.port}")
    assert [both.wait(), master.wait()] == [0, 0]


def test_who_has_no_right_certificate_is_not_let_in(own_site, folder, tmp_path):
    make_certificates(str(tmp_path / "other"), ["127.0.0.1"])
    make_client(str(tmp_path / "other"), "worker-0", ["0"])
    master = own_site.master(*RUN, options=_asks(folder))
    url, ca = f"https://127.0.0.1:{master.port}", ("--cafile", folder / "ca.pem")
    other = tmp_path / "other"
    cases = {
        "none": ca,
        "foreign": (*ca, "--cert", other / "worker-0.pem", "--key", other / "worker-0.key"),
        "posing": (*ca, "--cert", folder / "server.pem", "--key", folder / "server.key"),
        "another": _shows(folder, "worker-1"),
        "nobody": _shows(folder, "nobody"),
        "ann": _shows(folder, "operator-ann"),
    }
    ends = {name: own_site.worker(0, master, *options, url=url, name=name)
            for name, options in cases.items()}
    check_end(ends["none"], 2, "lets nobody in without a certificate of its authority", "got none")
    for name in ("foreign", "posing"):
        check_end(ends[name], 2, "lets nobody in without a certificate of its authority",
                  "got one that it does not accept")
    check_end(ends["another"], 3, "the certificate is not that of the token's holder",
              "expected one for worker 0", "got one for 1")
    check_end(ends["nobody"], 3, "this certificate is for no worker, operator or viewer")
    check_end(ends["ann"], 3, "got one for operator-ann")
    worker = tokens.worker_token(master.secret, 0)
    assert _curl(folder, master, "/register", "worker-1", worker, "POST")[1]["error"] == (
        "unauthorized")
    assert _curl(folder, master, "/status", "worker-1")[1]["connected_workers"] == 0


def test_what_curl_is_told_for_each_certificate_and_token(own_site, folder):
    master = own_site.master(*RUN, options=_asks(folder))
    secret = master.secret
    ann, bob = (tokens.token_of(secret, tokens.holder(key)) for key in ("operator-ann",
                                                                       "viewer-bob"))
    code, _ = _curl(folder, master, "/status")
    assert code != 0, "nothing is answered without a certificate"
    for name, token, path, method, ok in (
            ("viewer-bob", None, "/status", "GET", True),
            ("worker-0", None, "/status", "GET", True),
            ("viewer-bob", bob, "/config", "GET", True),
            ("operator-ann", bob, "/config", "GET", True),
            ("viewer-bob", bob, "/pause", "POST", False),
            ("viewer-bob", ann, "/pause", "POST", False),
            ("worker-0", ann, "/pause", "POST", False),
            ("worker-0", secret, "/pause", "POST", False),
            ("worker-0", bob, "/whoami", "GET", False),
            ("nobody", secret, "/status", "GET", False),
            ("operator-ann", ann, "/pause", "POST", True),
            ("operator-ann", secret, "/resume", "POST", True)):
        answer = _curl(folder, master, path, name, token, method)[1]
        assert (answer.get("error") is None) == ok, (name, path, answer)
    seen = own_site.start("audit", sys.executable, "-m", "flq", "audit", str(master.run_dir),
                          "--json")
    assert seen.wait() == 0
    shown = fingerprint_of(str(folder / "operator-ann.pem"))
    assert [(row["event"], row["by"]) for row in json.loads(seen.text())] == [
        ("pause", f"ann@127.0.0.1 certificate {shown}"),
        ("resume", f"owner@127.0.0.1 certificate {shown}")]


def test_one_certificate_is_revoked_while_the_master_runs_and_stays_so(own_site, folder):
    """Its connection is open when that happens."""
    settings = ("total_workers=2", "max_rounds=100000", "mode=laq", "min_workers=1",
                "worker_timeout_s=3")
    master = own_site.master(*settings, options=_asks(folder))
    url = f"https://127.0.0.1:{master.port}"
    kept = own_site.worker(0, master, *_shows(folder, "worker-0"), url=url)
    gone = own_site.worker(1, master, *_shows(folder, "worker-1"), url=url)

    def status():
        return _curl(folder, master, "/status", "operator-ann")[1]

    wait_until(lambda: status()["connected_workers"] == 2, "both are there")
    done = own_site.start("revoke", sys.executable, "-m", "flq", "certs", "--revoke",
                          folder / "worker-1.pem")
    assert done.wait() == 0 and fingerprint_of(str(folder / "worker-1.pem")) in done.text()
    check_end(gone, 3, "this certificate was revoked")
    round_ = status()["current_round"]
    wait_until(lambda: status()["current_round"] > round_ + 2, "the other goes on")
    master.kill()
    again = own_site.master(*settings, options=_asks(folder), name="again",
                            run_dir=master.run_dir.name, port=master.port)
    late = own_site.worker(1, again, *_shows(folder, "worker-1"), url=url, name="late")
    check_end(late, 3, "this certificate was revoked")
    back = own_site.worker(1, again, *_shows(folder, "again"), url=url, name="back")
    back.wait_for_text("registered with run")
    assert kept.process.poll() is None


def test_the_command_line_makes_certificates_of_clients(own_site):
    def certs(*options):
        done = own_site.start("certs", sys.executable, "-m", "flq", "certs", *options)
        return done.wait(), done.text()

    code, text = certs("127.0.0.1", "--worker", "0-1", "--operator", "ann", "--out", "certs")
    assert code == 0 and "worker 0-1: --cert certs/worker-0-1.pem --key certs/worker-0-1.key" in (
        text) and "operator ann: --cert certs/operator-ann.pem" in text
    shown = subprocess.run(["openssl", "x509", "-in", own_site.directory / "certs/worker-0-1.pem",
                            "-noout", "-text"], check=True, capture_output=True, text=True).stdout
    assert "URI:urn:flq:0, URI:urn:flq:1" in shown.replace("worker:", "") and (
        "TLS Web Client Authentication") in shown and "TLS Web Server" not in shown
    assert (own_site.directory / "certs/worker-0-1.key").stat().st_mode & 0o777 == 0o600
    for options, words in ((("--out", "certs"), "what is to be made?"),
                           (("--worker", "1-0", "--out", "c"), "--worker_id cannot take"),
                           (("--worker", "0-300", "--out", "c"), "not for that many workers"),
                           (("--operator", "owner", "--out", "c"), "nobody has a token"),
                           (("--revoke", "certs/ca.key"), "the operator's token")):
        code, text = certs(*options)
        assert code == 2 and text.startswith("error: ") or words in text, text


def test_a_master_refuses_an_open_key_and_a_client_authority_that_is_none(own_site, folder,
                                                                          tmp_path):
    open_key = tmp_path / "open.key"
    open_key.write_bytes((folder / "server.key").read_bytes())
    open_key.chmod(0o644)
    pem = ("--certfile", folder / "server.pem")
    for options, words in (((*pem, "--keyfile", open_key), f"chmod 600 {open_key}"),
                           ((*pem, "--keyfile", folder / "server.key", "--client_ca", open_key),
                            "cannot use the clients' authority"),
                           (("--client_ca", folder / "ca.pem"), "expected --certfile; got none")):
        check_end(own_site.master(*RUN, options=options), 2, words)


# --- tokens


def test_a_token_is_revoked_while_the_master_runs(own_site):
    settings = ("total_workers=2", "max_rounds=100000", "mode=laq", "min_workers=1",
                "worker_timeout_s=3")
    master = own_site.master(*settings, options=())
    own = {}
    for m in range(2):
        own[m] = own_site.directory / f"token-{m}"
        own[m].write_text(master.worker_token(m))
        own[m].chmod(0o600)
    workers = [own_site.worker(m, master, "--token_file", own[m]) for m in range(2)]
    wait_until(lambda: master.status()["connected_workers"] == 2, "both are there")
    done = own_site.start("revoke", sys.executable, "-m", "flq", "token", "--revoke", "1")
    assert done.wait() == 0 and "next: python -m flq token --worker 1" in done.text()
    check_end(workers[1], 3, "this token was revoked")
    assert master.status()["worker_status"]["1"]["tokens_revoked"] == 1
    master.kill()
    again = own_site.master(*settings, options=(), name="again", run_dir=master.run_dir.name,
                            port=master.port)
    # its state file and its old token are somebody else's now
    check_end(own_site.worker(1, again, "--token_file", own[1], name="late"), 3,
              "this token was revoked")
    assert again.status()["worker_status"]["1"]["tokens_revoked"] == 1
    printed = own_site.start("token", sys.executable, "-m", "flq", "token", "--worker", "1")
    assert printed.wait() == 0
    own[1].write_text(printed.text())
    back = own_site.worker(1, again, "--token_file", own[1], name="back")
    back.wait_for_text("registered with run")
    assert workers[0].process.poll() is None
    damaged = revoked.beside(own_site.environment["FLQ_TOKEN"])
    with open(damaged, "w") as file:
        file.write("{")
    again.wait_for_text("cannot read the list of what was revoked")
    assert again.ask("POST", "/pause", again.secret).status_code == 200
    again.kill()
    check_end(own_site.master(*settings, options=(), name="third", run_dir=master.run_dir.name), 2,
              "cannot read the list of what was revoked")


def test_a_finished_run_is_read_by_viewers_and_changed_by_nobody(own_site):
    master = own_site.master("total_workers=1", "max_rounds=2", "mode=laq", "protect_reads=always",
                             options=())
    worker = own_site.worker(0, master)
    assert worker.wait() == 0
    master.wait_for_phase("FINISHED")
    bob = tokens.token_of(master.secret, tokens.holder("viewer-bob"))
    assert master.ask("GET", "/config", bob).status_code == 200
    assert master.ask("POST", "/workers/0/remove", bob).status_code == 401
    assert master.order("POST", "/pause").status_code == 200
    assert master.get("/events")["events"][-1]["event"] != "pause", "a finished run has no news"
    done = own_site.start("revoke", sys.executable, "-m", "flq", "token", "--revoke", "viewer-bob")
    assert done.wait() == 0
    assert master.ask("GET", "/config", bob).status_code == 401
