"""The broadcast model: one quantised difference a round, the same bytes for everybody (algorithm.md
1.2).

    theta_hat <- theta_hat + Q_dn(theta - theta_hat)

What the quantiser left out is still in theta - theta_hat and re-enters next round. With
`entropy_coding_down: context` master and workers keep a history of what was broadcast, the activity
of each weight (compression/contexts.py), beside which the levels are coded.
"""

from typing import NamedTuple, Optional, Tuple

import numpy as np

from flq import rng
from flq.compression import codec, configured, contexts
from flq.compression.codec import Body, Encoded
from flq.compression.identity import FEDAVG
from flq.compression.quantizer import Quantizer
from flq.modes import CONTEXT
from flq.parameters import Layout
from flq.settings import Config


class DownlinkSettings(NamedTuple):
    """The part of the configuration that a downlink needs. keeps_history: whether levels are coded
    beside the history of the broadcasts.
    """

    quantizer: Quantizer
    bits: int
    entropy_coding: bool
    keeps_history: bool
    sizes: Tuple[int, ...]
    seed: int


def settings_from(config: Config, layout: Layout) -> DownlinkSettings:
    """The downlink of a configuration and a model; b_down 0 or 32 is float32."""
    algorithm = config.flq_algorithm
    exact = algorithm.b_down in (0, 32)
    quantizer = FEDAVG if exact else configured(algorithm.downlink, algorithm, "_down")
    asked = algorithm.entropy_coding_down
    return DownlinkSettings(quantizer, 32 if exact else algorithm.b_down,
                            quantizer.mode.is_coded(bool(asked)), asked == CONTEXT and not exact,
                            layout.sizes, config.dataset.seed)


def initial_activity(settings: DownlinkSettings) -> Optional[np.ndarray]:
    """Of version 0, uint8[p]; None where no history is kept."""
    return contexts.initial_activity(sum(settings.sizes)) if settings.keeps_history else None


def encode(params: np.ndarray, broadcast: np.ndarray, round_: int,
           settings: DownlinkSettings,
           activity: Optional[np.ndarray] = None) -> Tuple[Encoded, np.ndarray]:
    """theta, theta_hat float32[p] -> the encoding and the new theta_hat. activity: of the
    broadcasts before, None where no history is kept.
    """
    draw = rng.Stream(settings.seed, rng.DOWNLINK, 0, round_).uniform
    encoded = codec.encode(settings.quantizer, params - broadcast, settings.sizes, settings.bits,
                           draw, activity)
    return encoded, apply(broadcast, encoded, settings.sizes)


def apply(broadcast: np.ndarray, encoded: Encoded, sizes: Tuple[int, ...]) -> np.ndarray:
    """theta_hat + c, the step that master and workers share."""
    return codec.decode(encoded, sizes, broadcast)


def keyframe(broadcast: np.ndarray, sizes: Tuple[int, ...]) -> Body:
    """theta_hat itself in float32, for who missed too much."""
    draw = rng.Stream(0, rng.DOWNLINK).uniform  # float32 draws nothing
    return codec.to_body(codec.encode(FEDAVG, broadcast, sizes, 32, draw), False)
