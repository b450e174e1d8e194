"""NVFlare's FedAvg rounds in its simulator, a process for the server and one for each client; run
by rounds.py.

    python nvflare_job.py WORKERS ROUNDS FILE WORKSPACE

The model is one float32 vector, as NVFlare's NumPy recipe takes it. The end of a round is taken at
one client: when it receives the next model.
"""

import sys
from pathlib import Path

import numpy as np
from nvflare.app_common.np.recipes.fedavg import NumpyFedAvgRecipe
from nvflare.recipe.sim_env import SimEnv
from tensors import initial


def main():
    workers, rounds, file, workspace = int(sys.argv[1]), int(sys.argv[2]), sys.argv[3], sys.argv[4]
    checkpoint = str(Path(workspace) / "initial.npy")
    np.save(checkpoint, np.concatenate([tensor.reshape(-1) for tensor in initial()]))
    recipe = NumpyFedAvgRecipe(name="rounds", initial_ckpt=checkpoint, min_clients=workers,
                               num_rounds=rounds, train_script=str(
                                   Path(__file__).with_name("nvflare_client.py")),
                               train_args="--file " + file)
    recipe.execute(SimEnv(num_clients=workers, num_threads=workers, workspace_root=workspace))


if __name__ == "__main__":
    main()
