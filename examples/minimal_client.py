"""A worker in a few lines, to read beside docs/protocol.md: NumPy and requests, nothing of FLQ.

It trains softmax regression on its share of the digits, in float32 and without memory, so it fits
one kind of run:

    python flq_master.py --set mode=fedavg --set b_down=32 --set model.name=softmax \\
        --set init=zeros --set partition=local
    python -m flq token --worker 0 > worker0.token
    python examples/minimal_client.py http://127.0.0.1:5000 0 worker0.token \\
        flq/learning/datasets/digits.npz
"""

import hashlib
import struct
import sys
import zlib

import numpy as np
import requests

# docs/protocol.md, "The frame"
COMMON, BROADCAST, UPLOAD = "<4sBBBBH8sIIIQIII8s8s8sQ", "<ddddIB", "<dddI"
FRAME, FINAL = "application/x-flq", 4
SHAPES_HASH = hashlib.sha256(b'[[[64,10],[10]],[],"float32"]').hexdigest()[:16]

url, worker, token_file, data_file = sys.argv[1], int(sys.argv[2]), sys.argv[3], sys.argv[4]
http = requests.Session()


def call(method, path, **arguments):
    answer = http.request(method, url + path, timeout=60, **arguments)
    if answer.status_code >= 300:
        sys.exit(0 if answer.status_code == 410 else answer.text)  # 410: the run is over
    return answer


def local_update(params, x, y, round_, steps, rate, batch_size):
    """The mean of the gradients on the local path, and the mean loss."""
    update, loss, order = np.zeros(650, np.float32), 0.0, np.random.RandomState(round_).permutation(
        len(y))
    for step in range(steps):
        rows = np.take(order, range(step * batch_size, (step + 1) * batch_size), mode="wrap")
        scores = np.exp(x[rows] @ params[:640].reshape(64, 10) + params[640:])
        error = scores / scores.sum(axis=1, keepdims=True)
        loss -= np.log(error[np.arange(len(rows)), y[rows]]).mean() / steps
        error[np.arange(len(rows)), y[rows]] -= 1
        gradient = np.concatenate([(x[rows].T @ error).reshape(-1), error.sum(axis=0)]) / len(rows)
        params = params - rate * gradient
        update += gradient / steps
    return update.astype("<f4"), float(loss)


# The worker's token opens the run: first its configuration, then, with what this worker has, a
# session.
with open(token_file) as file:
    http.headers["Authorization"] = "Bearer " + file.read().strip()
run = call("POST", "/register", json={"protocol": 1, "worker_id": worker}).json()
config = run["config"]
with np.load(data_file) as data:
    mine = slice(worker, None, config["system.total_workers"])
    x, y = data["x_train"][mine].reshape(-1, 64).astype(np.float32) / 16, data["y_train"][mine]
session = call(
    "POST", "/register", json={
        "protocol": 1, "worker_id": worker, "instance": "minimal", "num_samples": len(y),
        "partition_hash": "", "shapes_hash": SHAPES_HASH,
        "params_hash": hashlib.sha256(np.zeros(650, "<f4")).hexdigest()[:16]
    }).json()
http.headers["Authorization"] = "Bearer " + session["session"]
reference, held = bytes.fromhex(session["reference_hash"]), ""

while True:
    # Without `have` the answer is a keyframe: a header, then the model in float32.
    answer = call("GET", "/get_global_model?wait=25" + held, headers={"Accept": FRAME})
    if answer.status_code == 204:
        continue  # nothing is owed yet
    header = struct.unpack_from(COMMON, answer.content)
    flags, run_hash, round_, params_hash = header[5], header[6], header[7], header[15]
    if flags & FINAL:
        # having the last model, the next answer is 410
        held = f"&have={round_}&hash={params_hash.hex()}"
        continue
    params = np.frombuffer(answer.content, "<f4", offset=len(answer.content) - header[17])
    update, loss = local_update(params, x, y, round_, config["model.local_steps"],
                                config["model.local_lr"], config["dataset.batch_size"])

    # An upload: the common fields, the bid, a checksum over all but itself, the update.
    head = struct.pack(COMMON, b"FLQ1", 1, 2, 0, 32, 0, run_hash, round_, worker, round_, 650, 2, 0,
                       0, bytes.fromhex(SHAPES_HASH), params_hash, reference[:8],
                       update.nbytes) + struct.pack(UPLOAD, float(update @ update), loss, 0.0, 0)
    frame = head + struct.pack("<I", zlib.crc32(update, zlib.crc32(head))) + update.tobytes()
    outcome = call("POST", "/upload_update?wait=25", data=frame,
                   headers={"Content-Type": FRAME}).json()
    while outcome["state"] == "open":
        outcome = call("GET", f"/outcome?wait=25&round={round_}").json()
    reference = bytes.fromhex(outcome["reference_hash"])
