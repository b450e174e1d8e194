"""One worker of 13 parameters in three tensors, one of them empty, and what it proposes."""

import numpy as np

from flq import rng
from flq.algorithm import memories, uplink
from flq.algorithm.lazy import LazyTerms
from flq.compression import QUANTIZERS, codec
from flq.records import LocalResult

SIZES = (9, 0, 4)
P = sum(SIZES)
NOT_LAZY = LazyTerms(thr_scale=0.0, history_sum=0.0, max_skips=100, warmup=1, lazy_eps=0.0,
                     relative_weight=1.0)


def settings_of(name, memory, sizes=SIZES, entropy_coding=False, rate=1.0, keeps_history=False):
    rule = memories.MEMORIES[memory] if rate == 1 else memories.reference(rate)
    return uplink.UplinkSettings(QUANTIZERS[name], rule, entropy_coding, sizes, keeps_history)


def update_of(round_):
    """A target that the rounds approach, and noise, so that innovations shrink and grow."""
    noise = rng.Stream(9, rng.BATCHES, 0, round_).uniform(P) - 0.5
    target = rng.Stream(9, rng.INIT).uniform(P) - 0.5
    return (target + 0.1 * noise).astype(np.float32)


def result_of(update, non_trainable=()):
    return LocalResult(np.asarray(update, np.float32), np.asarray(non_trainable, np.float32), 1.0,
                       1)


def draw_of(round_):
    return rng.Stream(9, rng.UPLINK, 0, round_).uniform


def propose(state, update, round_, settings, lazy=NOT_LAZY):
    return uplink.propose(state, result_of(update), round_, settings, lazy, draw_of(round_))


def decoded(proposal, settings):
    encoded = codec.from_body(proposal.body, settings.quantizer, proposal.bits, settings.sizes)
    return codec.decode(encoded, settings.sizes)
