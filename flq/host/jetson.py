"""What a machine says of itself in /proc, /sys and /etc, and which TensorFlow belongs on a Jetson.
Standard library only.

test_environment.py uses it where nothing is installed yet. `root` is where the system's files are
looked for, "/" unless a test says otherwise; whatever is not there is None. Texts are printable and
at most 100 characters.
"""

import glob
import os
import re
from typing import Any, Dict, NamedTuple, Optional

_LONGEST_TEXT = 100
_REDIST = "https://developer.download.nvidia.com/compute/redist/jp/"


class JetPack(NamedTuple):
    """One series of NVIDIA's system for Jetsons.

    python: of its system and of NVIDIA's wheel. constraints: the file under constraints/ for a
    worker on it. tensorflow: NVIDIA's wheel, the only one that uses the GPU. index_url: where pip
    finds it.
    """

    name: str
    python: str
    constraints: str
    tensorflow: str
    index_url: str


# By the release of L4T, NVIDIA's Linux, which /etc/nv_tegra_release names.
JETPACKS = {
    32: JetPack("4.6", "3.6", "py36-tf2.6.txt", "tensorflow==2.7.0+nv22.1", _REDIST + "v461"),
    35: JetPack("5.1", "3.8", "py38-tf2.13.txt", "tensorflow==2.12.0+nv23.06", _REDIST + "v512"),
    36: JetPack("6", "3.10", "py310-tf2.16.txt", "tensorflow==2.16.1+nv24.08", _REDIST + "v61"),
}


def model(root: str = "/") -> Optional[str]:
    """The board, such as "NVIDIA Jetson Nano Developer Kit"; other boards with a device tree name
    themselves there too.
    """
    text = _read(root, "proc/device-tree/model")
    return _printable(text) if text else None


def release(root: str = "/") -> Optional[str]:
    """L4T's release, such as "32.7.1", from "# R32 (release), REVISION: 7.1, ..."."""
    found = re.match(r"# R(\d{1,4}) \(release\), REVISION: ([\d.]{1,16})",
                     _read(root, "etc/nv_tegra_release") or "")
    return "{}.{}".format(*found.groups()) if found else None


def jetpack(root: str = "/") -> Optional[JetPack]:
    """The JetPack of a Jetson; None elsewhere, and for a release that is not in JETPACKS."""
    found = release(root)
    return JETPACKS.get(int(found.split(".")[0])) if found else None


def describe(root: str = "/") -> Dict[str, Any]:
    """model, l4t, jetpack, memory_mb, swap_mb, temperature_c and power_mode of this machine,
    without what is unknown.
    """
    found = jetpack(root)
    told = {
        "model": model(root),
        "l4t": release(root),
        "jetpack": found.name if found else None,
        "memory_mb": memory_mb("MemTotal", root),
        "swap_mb": memory_mb("SwapTotal", root),
        "temperature_c": temperature(root),
        "power_mode": power_mode(root),
    }
    return {name: value for name, value in told.items() if value is not None}


def temperature(root: str = "/") -> Optional[float]:
    """The hottest thermal zone in degrees Celsius."""
    degrees = []
    for zone in glob.glob(os.path.join(root, "sys/class/thermal/thermal_zone*")):
        # The Nano's PMIC-Die is not measured: it always reads 100.
        if (_read(zone, "type") or "").strip() != "PMIC-Die":
            found = re.match(r"-?\d{1,6}$", (_read(zone, "temp") or "").strip())
            if found:
                degrees.append(int(found.group()) / 1000.0)
    return max(degrees) if degrees else None


def power_mode(root: str = "/") -> Optional[str]:
    """The name of the mode that nvpmodel has set, such as "MAXN", or its number where the name is
    not listed.

    nvpmodel writes both files for everybody to read; `nvpmodel -q` itself wants root on some
    releases.
    """
    found = re.search(r"pmode:(\d{1,4})", _read(root, "var/lib/nvpmodel/status") or "")
    if not found:
        return None
    number = int(found.group(1))
    modes = re.findall(r"POWER_MODEL\s+ID=(\d{1,4})\s+NAME=(\S+)",
                       _read(root, "etc/nvpmodel.conf") or "")
    return {int(mode): _printable(name) for mode, name in modes}.get(number, str(number))


def memory_mb(name: str, root: str = "/") -> Optional[int]:
    """A line of /proc/meminfo, such as MemTotal, in MiB. On a Jetson the GPU shares it."""
    found = re.search(rf"^{name}:\s+(\d{{1,15}}) kB",
                      _read(root, "proc/meminfo") or "", re.MULTILINE)
    return int(found.group(1)) // 1024 if found else None


def _printable(text: str) -> str:
    return "".join(letter if letter.isprintable() else " "
                   for letter in text).strip()[:_LONGEST_TEXT]


def _read(root: str, path: str) -> Optional[str]:
    try:
        with open(os.path.join(root, path), encoding="utf-8", errors="replace") as file:
            return file.read(65536)
    except OSError:
        return None
