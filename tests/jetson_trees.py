"""File trees that say what real Jetsons say in /proc, /sys, /etc and /var."""

import os

NANO = {
    "proc/device-tree/model": "NVIDIA Jetson Nano Developer Kit\0", "etc/nv_tegra_release":
        "# R32 (release), REVISION: 7.1, GCID: 29818004, BOARD: t210ref, EABI: aarch64, "
        "DATE: Sat Feb 19 17:05:08 UTC 2022\n",
    "proc/meminfo": "MemTotal:        4051048 kB\nMemFree:          102400 kB\nMemAvailable:    "
                    "2097152 kB\nSwapTotal:       2025520 kB\n",
    "sys/class/thermal/thermal_zone0/type": "AO-therm\n",
    "sys/class/thermal/thermal_zone0/temp": "48500\n",
    "sys/class/thermal/thermal_zone1/type": "CPU-therm\n",
    "sys/class/thermal/thermal_zone1/temp": "41000\n",
    "sys/class/thermal/thermal_zone4/type": "PMIC-Die\n",
    "sys/class/thermal/thermal_zone4/temp": "100000\n", "var/lib/nvpmodel/status": "pmode:0001",
    "etc/nvpmodel.conf": "< PARAM TYPE=FILE NAME=CPU_ONLINE >\n< POWER_MODEL ID=0 NAME=MAXN >\n"
                         "CPU_ONLINE CORE_0 1\n< POWER_MODEL ID=1 NAME=5W >\n",
}
NANO_REPORT = {
    "model": "NVIDIA Jetson Nano Developer Kit", "l4t": "32.7.1", "jetpack": "4.6",
    "memory_mb": 3956, "swap_mb": 1978, "temperature_c": 48.5, "power_mode": "5W"
}

ORIN = dict(
    NANO, **{
        "proc/device-tree/model": "NVIDIA Jetson Orin Nano Developer Kit\0", "etc/nv_tegra_release":
            "# R36 (release), REVISION: 4.3, GCID: 38968081, BOARD: generic, EABI: aarch64, "
            "DATE: Wed Jan  8 01:49:37 UTC 2025\n", "var/lib/nvpmodel/status": "pmode:0000",
        "etc/nvpmodel.conf": "< POWER_MODEL ID=0 NAME=15W >\n< POWER_MODEL ID=1 NAME=25W >\n"
    })
XAVIER = dict(
    NANO, **{
        "proc/device-tree/model": "NVIDIA Jetson Xavier NX Developer Kit\0", "etc/nv_tegra_release":
            "# R35 (release), REVISION: 4.1, GCID: 33958178, BOARD: t186ref, EABI: aarch64, "
            "DATE: Tue Aug  1 19:57:35 UTC 2023\n"
    })


def plant(root, tree):
    """Write a tree under a folder and return the folder's name."""
    for path, text in tree.items():
        path = os.path.join(str(root), path)
        if not os.path.isdir(os.path.dirname(path)):
            os.makedirs(os.path.dirname(path))
        with open(path, "w") as file:
            file.write(text)
    return str(root)
