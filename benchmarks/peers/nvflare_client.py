"""Answers with the model plus an update from a table; the first client notes when each model came.
"""

import argparse

import numpy as np
import nvflare.client as flare
from processes import Rounds
from tensors import SAMPLES, TABLE


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--file", required=True)
    rounds = Rounds(parser.parse_args().file)
    step = np.concatenate([tensor.reshape(-1) for tensor in TABLE])
    flare.init()
    while flare.is_running():
        model = flare.receive()
        if model is None:
            break
        if flare.get_site_name() == "site-1":
            rounds.ended()
        params = {
            name: np.asarray(vector, np.float32) + step for name, vector in model.params.items()
        }
        flare.send(
            flare.FLModel(params=params, params_type="FULL",
                          meta={"NUM_STEPS_CURRENT_ROUND": SAMPLES}))


if __name__ == "__main__":
    main()
