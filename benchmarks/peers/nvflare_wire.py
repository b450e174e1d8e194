#!/usr/bin/env python3
"""What NVFlare sends between its clients and its server, with its own float32, with its quantiser
AdaQuant and with FLQ's updates, counted by a proxy on each client's connections.

    tests/integrations/run.sh nvflare                # once: build/integrations/nvflare
    build/integrations/nvflare/bin/python benchmarks/peers/nvflare_wire.py --rounds 6

The job is examples/nvflare_job in NVFlare's POC mode: a server and clients as processes, which talk
over mutual TLS; `float32` is the same job without the line of add_flq, `adaquant` has NVFlare's
filters in its place (they need bitsandbytes). Bytes are all that a proxy saw, polls, heartbeats and
TLS included, from one round to the next and for each client; the first round, which also brings the
job and the whole model, is left out. A round ends when the first client has the next model, whose
accuracy on the whole test set is the one at the end. Prints a Markdown table.
"""

import argparse
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

from benchmarks.peers.counted import CountedGroup, print_head, print_row  # noqa: E402
from benchmarks.peers.processes import free_ports, listens, wait_for  # noqa: E402

EXAMPLE = ROOT / "examples" / "nvflare_job"
PLAIN, ADAQUANT = "float32", "adaquant"
RECEIVED = "        if model is None:\n            break\n"
NOTE = """        import json, os, time
        if site == 0:
            net.load_state_dict(model.params)
            note = [time.time(), accuracy(net, load_data("test"))]
            with open(os.environ["ROUNDS_FILE"], "a") as file:
                file.write(json.dumps(note) + "\\n")
"""


def prepared(folder):
    """A copy of the job whose first client notes each model that came."""
    code = Path(folder) / "code"
    shutil.copytree(EXAMPLE, code, ignore=shutil.ignore_patterns("__pycache__"))
    script = code / "client.py"
    text = script.read_text()
    assert RECEIVED in text
    script.write_text(text.replace(RECEIVED, RECEIVED + NOTE))
    return code


def recipe_of(code, mode, nodes, rounds):
    """The job as examples/nvflare_job/job.py makes it. mode: FLQ's, or that of a row without it."""
    from nvflare.app_opt.pt.recipes.fedavg import FedAvgRecipe
    sys.path.insert(0, str(code))
    from model import SimpleNetwork
    recipe = FedAvgRecipe(name="job", model=SimpleNetwork(), min_clients=nodes, num_rounds=rounds,
                          train_script=str(code / "client.py"), train_args=f"--num_sites {nodes}")
    if mode == ADAQUANT:
        from nvflare.app_opt.pt.quantization.dequantizer import ModelDequantizer
        from nvflare.app_opt.pt.quantization.quantizer import ModelQuantizer
        for out in (recipe.add_server_output_filter, recipe.add_client_output_filter):
            out(ModelQuantizer("adaquant"), ["train"])
        for came in (recipe.add_client_input_filter, recipe.add_server_input_filter):
            came(ModelDequantizer(), ["train"])
    elif mode != PLAIN:
        from flq.integrations.nvflare import add_flq
        add_flq(recipe, mode=mode)
    return recipe


class Nvflare(CountedGroup):
    """NVFlare's POC mode: a server, and clients behind proxies."""

    def __init__(self, folder, nodes):
        super().__init__(folder, {"HOME": str(folder),
                                  "NVFLARE_POC_WORKSPACE": str(Path(folder) / "poc")})
        subprocess.run([self.bin / "nvflare", "poc", "prepare", "-n", str(nodes)], check=True,
                       env=self.environment, stdout=subprocess.DEVNULL, cwd=str(folder))
        self.kits = Path(folder) / "poc" / "example_project" / "prod_00"
        port, = free_ports(1)
        for file in self.kits.glob("*/startup/fed_*.json"):
            self._move(file, port)
        self.server = self._serve("server")
        wait_for(lambda: listens(port), "NVFlare's server", 300)
        self.stand_before(port, nodes)
        for number, proxy in enumerate(self.proxies):
            self._move(self.kits / f"site-{number + 1}" / "startup" / "fed_client.json",
                       proxy.address[1], port)
        self.clients = [self._serve(f"site-{number + 1}") for number in range(nodes)]

    def _move(self, file, port, old=8002):
        file.write_text(file.read_text().replace(f":{old}", f":{port}").replace(
            f": {old}", f": {port}"))

    def _serve(self, name):
        return self.start("bash", self.kits / name / "startup" / "sub_start.sh", "--once")

    def session(self):
        """An administrator's, when the server lets one in."""
        from nvflare.fuel.flare_api.flare_api import new_secure_session
        admin = "admin@nvidia.com"
        return new_secure_session(admin, str(self.kits / admin), timeout=120)

    def connected(self, session):
        """How many clients the server knows."""
        return len(session.get_system_info().client_info)

    def submit(self, recipe):
        """The job's id, once all clients are there."""
        session = self.session()
        try:
            wait_for(lambda: self.connected(session) == len(self.clients), "the clients", 300)
            recipe.export(str(self.folder / "job"))
            return session.submit_job(str(self.folder / "job" / "job"))
        finally:
            session.close()

    def run(self, recipe, rounds, patience_s=1800):
        """`count` as each round began."""
        self.submit(recipe)
        end = time.monotonic() + patience_s
        return self.count(rounds, lambda: self.server.poll() is not None or time.monotonic() > end)


def measure(code, mode, nodes, rounds):
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        recipe = recipe_of(code, mode, nodes, rounds)
        system = Nvflare(Path(folder), nodes)
        try:
            return system.run(recipe, rounds)
        finally:
            system.end()


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--nodes", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=6)
    parser.add_argument("--modes", nargs="+", default=[PLAIN, ADAQUANT, "laq", "rd", "bin"])
    arguments = parser.parse_args()
    print_head()
    with tempfile.TemporaryDirectory() as folder:
        code = prepared(folder)
        for mode in arguments.modes:
            print_row(mode, measure(code, mode, arguments.nodes, arguments.rounds),
                      arguments.nodes)


if __name__ == "__main__":
    main()
