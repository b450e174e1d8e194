"""The state files of older versions, written from their description: five arrays by position.

    magic | lengths of the header (u32) and the model (u64) | header (JSON) | memory, body, values
    | params, state | SHA-256
"""

import hashlib
import json
import struct

import numpy as np


def older_state(version, record, memory, quantizer, layout):
    """The file of FLQSTATE1, which held h as float32, or FLQSTATE2."""
    proposal, empty = record.proposal, np.zeros(0, np.float32)
    held = record.uplink.memory if proposal is None else proposal.kept.memory
    arrays = [
        b"" if held is None else
        held.astype("<f8" if version == 2 and memory == "reference" else "<f4").tobytes(),
        b"" if proposal is None or proposal.body is None else proposal.body.data,
        (empty if proposal is None else proposal.non_trainable).astype("<f4").tobytes()
    ]
    model = [record.params.astype("<f4").tobytes(), record.non_trainable.astype("<f4").tobytes()]
    header = {
        "instance": record.instance, "run_id": record.run_id, "version": record.version,
        "two_phase": record.two_phase, "params_hash": record.params_hash.hex(),
        "shapes_hash": layout.hash(), "quantizer": quantizer, "memory": memory, "uplink": _told(
            record.uplink), "proposal": None, "lengths": [len(array) for array in arrays + model]
    }
    if proposal is not None:
        header["proposal"] = {
            "round": proposal.round, "reason": proposal.reason, "bits": proposal.bits,
            "coded": bool(proposal.body and proposal.body.coded), "silent": proposal.body is None,
            "gain": proposal.gain, "residual_norm": proposal.residual_norm, "loss": repr(
                proposal.loss), "committed": _told(proposal.committed), "kept": _told(proposal.kept)
        }
    head = json.dumps(header, separators=(",", ":")).encode("ascii")
    return envelope(f"FLQSTATE{version}\n".encode("ascii"), head, arrays, model)


def envelope(magic, head, arrays, model):
    """What all versions have in common; FLQSTATE4 tells the length of the arrays too."""
    lengths = [len(head), sum(map(len, model))]
    if magic >= b"FLQSTATE4\n":
        lengths.insert(1, sum(map(len, arrays)))
    hashed = magic + struct.pack("<I" + "Q" * (len(lengths) - 1), *lengths) + head + b"".join(
        arrays)
    return hashed + b"".join(model) + hashlib.sha256(hashed).digest()


def _told(state):
    return {
        "reference_hash": state.reference_hash.hex(), "clock": state.clock,
        "last_error2": state.last_error2, "bits": state.bits
    }
