"""What a worker makes of a round: the terms of its lazy rule, and the frame of its proposal."""

from flq.algorithm.lazy import LazyTerms
from flq.algorithm.uplink import Proposal, UplinkSettings, UplinkState
from flq.protocol import frames
from flq.protocol.frames import Content, Expected, Place, RoundTerms, UploadTerms
from flq.settings import Config


def lazy_terms(config: Config, terms: RoundTerms, num_samples: int) -> LazyTerms:
    """What the lazy rule reads in the round that a broadcast with these terms opened."""
    weight = 1.0 if config.flq_algorithm.weighting == "uniform" else float(num_samples)
    lazy, mean = config.lazy_selection, terms.mean_weight
    return LazyTerms(terms.thr_scale, terms.history_sum, terms.max_skips, lazy.warmup,
                     lazy.lazy_eps, weight / mean if mean > 0 else 1.0)


def upload_frame(proposal: Proposal, base_hash: bytes, worker: int, held: UplinkState,
                 settings: UplinkSettings, expected: Expected) -> bytes:
    """The frame of a proposal that is no silence. base_hash: of the model that it started from.
    held: what the worker held when it proposed.
    """
    assert proposal.body is not None, "a silence is not uploaded"
    return frames.pack(
        Content(settings.quantizer, proposal.bits, proposal.body, proposal.non_trainable),
        Place(proposal.round, proposal.round, base_hash, worker, held.reference_hash),
        UploadTerms(proposal.gain, proposal.loss, proposal.residual_norm, held.clock), expected)
