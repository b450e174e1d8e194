"""What nvflare_server.py and nvflare_client.py share: how FLQ's fields and a model's arrays
stand in NVFlare's messages.
"""

from __future__ import annotations

import hashlib
from typing import Any, Mapping

import numpy as np
from nvflare.apis.dxo import DXO, DataKind, MetaKey

from flq.errors import DataError

RECORD = "flq"
"""FLQ's fields in a DXO."""
HOLDS = "flq.holds"
"""The public property in which a client says, with each request, which model it holds."""
SHARED = "flq.filters"
"""The private property by which the second filter of a pair finds the first one."""
WEIGHTS = [DataKind.WEIGHTS, DataKind.WEIGHT_DIFF]
NUMPY, TENSORS = "numpy", "tensors"
"""The types of arrays that a job's models have."""


def node_of(client: str) -> int:
    """A client's id in its hash chains: its name decides, on both sides."""
    return int.from_bytes(hashlib.sha256(client.encode()).digest()[:8], "big")


def replaced(dxo: DXO, kind: str, data: dict[str, Any]) -> DXO:
    """The same DXO with other data. Its history of filters is left out: DXOFilter copies it."""
    meta = {name: value for name, value in dxo.meta.items() if name != MetaKey.FILTER_HISTORY}
    return DXO(kind, data, meta)


def arrays_of(dxo: DXO) -> tuple[dict[str, np.ndarray], str]:
    """The arrays of a DXO, and their type in it: TENSORS of PyTorch, or NUMPY.

    Raises DataError where another filter has made something else of them.
    """
    changed = dxo.get_meta_prop(MetaKey.PROCESSED_ALGORITHM)
    if changed is not None:
        raise DataError("another filter changed the model before FLQ could", "whole arrays",
                        changed, "give that filter other tasks than add_flq")
    array_type, arrays = NUMPY, {}
    for name, value in dxo.data.items():
        if not isinstance(value, np.ndarray) and hasattr(value, "detach"):
            array_type, value = TENSORS, value.detach().cpu().numpy()
        arrays[name] = np.asarray(value)
    return arrays, array_type


def given_as(array_type: str, arrays: dict[str, np.ndarray]) -> dict[str, Any]:
    """The arrays as that type, which is that of the job's own."""
    if array_type != TENSORS:
        return dict(arrays)
    import torch
    return {name: torch.from_numpy(array) for name, array in arrays.items()}


def num_samples(meta: Mapping[str, Any]) -> int:
    """A client's weight, from where NVFlare's FedAvg takes it: 1 where it does not say any."""
    value = meta.get(MetaKey.NUM_STEPS_CURRENT_ROUND)
    if isinstance(value, (int, float)) and not isinstance(value, bool) and 1 <= value < 2**53:
        return int(value)
    return 1
