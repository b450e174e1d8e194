"""The weights of LeastSquares as a PyTorch model, which NVFlare's recipe wants."""

import torch

from tests.system.own_learner import LeastSquares


class Weights(torch.nn.Module):
    """No model to call: a holder of parameters and of one moving mean."""

    def __init__(self):
        super().__init__()
        kernel, bias, mean = map(torch.from_numpy, LeastSquares().weights())
        self.kernel, self.bias = torch.nn.Parameter(kernel), torch.nn.Parameter(bias)
        self.register_buffer("running_mean", mean)
