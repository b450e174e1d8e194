"""Quantisers: vector <-> levels <-> bytes. Pure NumPy: no clock, no files, no global random state.

A new quantiser is one file with two functions of one tensor, and one line in `QUANTIZERS`. The contract
test in tests/contracts/test_quantizers.py then covers it.
"""

from flq.compression.bbit import BBIT
from flq.compression.binary import BIN
from flq.compression.identity import FEDAVG
from flq.compression.laq import LAQ
from flq.compression.qsgd import QSGD
from flq.compression.quantizer import Quantizer
from flq.compression.rate_distortion import RD, with_step

QUANTIZERS = {quantizer.name: quantizer for quantizer in (FEDAVG, LAQ, BBIT, BIN, QSGD, RD)}
BY_WIRE_ID = {quantizer.wire_id: quantizer for quantizer in QUANTIZERS.values()}


def configured(name: str, rd_step: float) -> Quantizer:
    """The quantiser of that name as a configuration sets it. rd_step: of rd; the others have nothing to set but their bits."""
    return with_step(rd_step) if name == RD.name else QUANTIZERS[name]
