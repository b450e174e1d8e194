"""The run's model for people and their programs: what GET /get_global_model answers to who is no
worker.
"""

from __future__ import annotations

import io
from typing import Any

import numpy as np

from flq.errors import ProtocolError
from flq.master.service import Service
from flq.parameters import unflatten


def model_for_people(service: Service, form: str) -> dict[str, Any] | bytes:
    """About the model; with form `json` its weights too, with `npz` those as a file of NumPy."""
    with service.locked() as run:
        model, tested = run.model, run.history.newest_tested
    layout = service.learner.layout
    about = {
        "round": model.version, "version": model.version,
        "accuracy": tested.accuracy if tested else None, "loss": tested.loss if tested else None,
        "num_parameters": layout.num_params, "shapes": layout.shapes
    }
    if not form:
        return about
    tensors = unflatten(model.result.params, layout.shapes)
    if form == "json":
        return dict(about, weights=[tensor.tolist() for tensor in tensors])
    if form != "npz":
        raise ProtocolError("bad_request", "unknown format", "json or npz", form[:40])
    file = io.BytesIO()
    arrays: dict[str, Any] = {f"p{index}": tensor for index, tensor in enumerate(tensors)}
    arrays.update((f"s{index}", tensor) for index, tensor in enumerate(
        unflatten(model.result.non_trainable, layout.non_trainable_shapes)))
    if layout.num_constants:
        constants = np.frombuffer(service.learner.constants, "<f4")
        arrays.update((f"c{index}", tensor)
                      for index, tensor in enumerate(unflatten(constants, layout.constant_shapes)))
    np.savez(file, version=np.int64(model.version), **arrays)
    return file.getvalue()
