"""NVFlare's PyTorch example hello-pt with FLQ's updates, on handwritten digits: two lines name FLQ.

    pip install "flq[nvflare]"
    cd examples/nvflare_job && python job.py --num_rounds 5
"""

import argparse

from model import SimpleNetwork
from nvflare.app_opt.pt.recipes.fedavg import FedAvgRecipe
from nvflare.recipe import SimEnv

from flq.integrations.nvflare import add_flq


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--n_clients", type=int, default=2)
    parser.add_argument("--num_rounds", type=int, default=5)
    parser.add_argument("--mode", default="laq", help="FLQ's: laq, rd, bin, ...")
    arguments = parser.parse_args()
    recipe = FedAvgRecipe(name="hello-pt", model=SimpleNetwork(), min_clients=arguments.n_clients,
                          num_rounds=arguments.num_rounds, train_script="client.py",
                          train_args=f"--num_sites {arguments.n_clients}")
    add_flq(recipe, mode=arguments.mode)
    run = recipe.execute(SimEnv(num_clients=arguments.n_clients))
    print("the result is in", run.get_result())


if __name__ == "__main__":
    main()
