"""Other projects' quantisers on the vectors of benchmarks/rate_distortion.py, which runs this in
each one's own environment.

    python codecs.py NAME VECTORS.npz --repeats 7

Each tensor by itself, as these projects do. bits: all arrays that would travel, with their scales
and tables. Prints one JSON line for each quantiser.
"""

import argparse
import ctypes
import json
import statistics
import time

import numpy as np


def nvflare():
    """(name, setting, encode(float32[n]) -> payload, decode(payload) -> float32[n],
    bytes(payload)).
    """
    import torch
    from nvflare.app_opt.pt.quantization.ada_quant import AdaQuantizer
    torch.set_num_threads(1)

    def size(payload):
        quantized, state = payload
        if "compressed_tensor" in state:
            return state["compressed_tensor"].nbytes + 16
        return quantized.nbytes + 16  # its offset and its norm

    for weight in (0.1, 0.01, 0.001, 0.0001):
        codec = AdaQuantizer(weight=weight)

        def encode(values, codec=codec):
            return codec.quantize(torch.from_numpy(values))

        def decode(payload, codec=codec):
            quantized, state = payload
            if not state:
                return quantized.numpy()
            if isinstance(quantized, np.ndarray):
                quantized = torch.from_numpy(quantized)
            return codec.dequantized(quantized, state).float().numpy().reshape(-1)

        yield "NVFlare AdaQuant", f"weight {weight}", encode, decode, size


def bitsandbytes():
    import torch
    from bitsandbytes import functional
    torch.set_num_threads(1)

    def size(payload):
        quantized, state = payload
        return quantized.numel() * quantized.element_size() + state.absmax.numel(
        ) * state.absmax.element_size()

    for kind in ("nf4", "fp4"):
        def encode(values, kind=kind):
            return functional.quantize_4bit(torch.from_numpy(values), quant_type=kind)

        def decode(payload, kind=kind):
            return functional.dequantize_4bit(*payload, quant_type=kind).numpy().reshape(-1)

        yield "bitsandbytes " + kind, "blocks of 64", encode, decode, size

    def encode_8(values):
        return functional.quantize_blockwise(torch.from_numpy(values))

    def decode_8(payload):
        return functional.dequantize_blockwise(*payload).numpy().reshape(-1)

    yield "bitsandbytes 8 bits", "blocks of 4096", encode_8, decode_8, size


def openfl():
    import torch
    from openfl.pipelines.eden_pipeline import EdenTransformer
    torch.set_num_threads(1)

    def size(payload):
        data, metadata = payload
        return len(data) + 4 * len(metadata.get("int_to_float") or {})

    for bits in (1, 2, 3, 4, 6, 8):
        codec = EdenTransformer(n_bits=bits)

        def encode(values, codec=codec):
            return codec.forward(values)

        def decode(payload, codec=codec):
            return np.asarray(codec.backward(*payload), np.float32).reshape(-1)

        yield "OpenFL EDEN", f"{bits} bits", encode, decode, size


def fedlab():
    import torch
    from fedlab.contrib.compressor.quantization import QSGDCompressor
    torch.set_num_threads(1)
    for bits in (2, 4, 8):
        codec = QSGDCompressor(n_bit=bits)

        def encode(values, codec=codec):
            return codec.compress(torch.from_numpy(values))

        def decode(payload, codec=codec):
            return codec.decompress(payload).numpy().reshape(-1)

        yield "FedLab QSGD", f"{bits} bits", encode, decode, lambda payload: sum(
            part.nbytes for part in payload)


PEERS = {"nvflare": nvflare, "bitsandbytes": bitsandbytes, "openfl": openfl, "fedlab": fedlab}


def measure(vector, sizes, encode, decode, size, repeats):
    """Bits per weight, relative error, and median ms of encoding and decoding, all tensors
    together.
    """
    ends = np.cumsum(sizes)
    parts = [np.ascontiguousarray(vector[end - length:end]) for end, length in zip(ends, sizes)]
    encoding, decoding = [], []
    for _ in range(repeats):
        start = time.process_time()
        payloads = [encode(part) for part in parts]
        middle = time.process_time()
        decoded = [decode(payload) for payload in payloads]
        encoding.append(middle - start)
        decoding.append(time.process_time() - middle)
    error = np.linalg.norm(vector - np.concatenate(decoded)) / np.linalg.norm(vector)
    bits = 8 * sum(map(size, payloads)) / vector.size
    return bits, float(
        error), 1000 * statistics.median(encoding), 1000 * statistics.median(decoding)


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("peer", choices=sorted(PEERS))
    parser.add_argument("vectors")
    parser.add_argument("--repeats", type=int, default=7)
    arguments = parser.parse_args()
    libc = ctypes.CDLL(None)
    # as flq/host/heap.py does, so that nobody pays for pages that are cleared anew
    libc.mallopt(-3, 32 << 20)
    libc.mallopt(-1, 64 << 20)
    with np.load(arguments.vectors) as file:
        vectors = {
            key: (file[key], file["sizes of " + key].tolist()) for key in file.files
            if not key.startswith("sizes of ")
        }
    for name, setting, encode, decode, size in PEERS[arguments.peer]():
        measured = {
            key: measure(vector, sizes, encode, decode, size,
                         arguments.repeats if key == "normal" else 1)
            for key, (vector, sizes) in vectors.items()
        }
        print(json.dumps({"name": name, "setting": setting, "measured": measured}), flush=True)


if __name__ == "__main__":
    main()
