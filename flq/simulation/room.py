"""What a simulation takes on the disk, told before it begins where that is much."""

from __future__ import annotations

import logging
import shutil
from pathlib import Path

from flq.algorithm import downlink, uplink
from flq.algorithm.uplink import UplinkSettings
from flq.compression import codec
from flq.parameters import Layout
from flq.protocol import frames
from flq.reports.terminal import format_bytes
from flq.settings import Config
from flq.worker.state_file import LONGEST_JOURNAL

_MUCH_BYTES = 10**9

_log = logging.getLogger("flq.simulation")


def tell(directory: Path, config: Config, layout: Layout, mapped: int, rounds: int,
         keeps_states: bool) -> None:
    """A line where a run may take a gigabyte or more, a warning where the disk may not have it.

    mapped: bytes of the workers' memories. rounds: that are left. keeps_states: whether the workers
    have state files. Uploads count as if nothing were entropy coded and nobody silent.
    """
    num_workers = config.system.total_workers
    up = uplink.settings_from(config, layout)
    upload = frames.header_length(frames.UPLOAD_KIND) + _longest_body(
        up, config.flq_algorithm.b_up) + 4 * layout.num_non_trainable
    uploads = -(-num_workers // config.system.cohorts) * upload
    parts = [f"{_size(mapped)} while they run"]
    if keeps_states:
        down = downlink.settings_from(config, layout)
        state = 4 * (layout.num_params + layout.num_non_trainable) + mapped // num_workers
        steps = rounds * (upload + _longest_body(down, down.bits))
        states = num_workers * (state + min(steps, LONGEST_JOURNAL * state))
        parts.append(f"at most {_size(states)} for their states")
    else:
        states = 0
    parts.append(f"at most {_size(uploads)} for the uploads of each round, "
                 f"{_size(rounds * uploads)} in all")
    free, whole = shutil.disk_usage(directory).free, mapped + states + rounds * uploads
    if whole >= _MUCH_BYTES:
        _log.log(logging.INFO if whole <= free else logging.WARNING,
                 "%d workers take of %s: %s; it has %s free", num_workers, directory,
                 ", ".join(parts), _size(free))


def _longest_body(settings: UplinkSettings | downlink.DownlinkSettings, bits: int) -> int:
    return codec.body_length_range(settings.quantizer, bits, settings.sizes, False)[1]


def _size(number: int) -> str:
    return format_bytes(8 * number)
