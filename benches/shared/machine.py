"""What the numbers were measured on: the machine, without names and paths, and the versions of all programs."""

import os
import pathlib
import platform
import subprocess


def describe(folder):
    """The machine; the file system is that of a folder."""
    memory = pathlib.Path("/proc/meminfo").read_text().split()[1]
    model = [line.split(":")[1].strip() for line in pathlib.Path("/proc/cpuinfo").read_text().splitlines()
             if line.startswith("model name")]
    file_system = subprocess.run(["stat", "-f", "-c", "%T", folder], capture_output=True, text=True).stdout.strip()
    return {
        "cores": len(os.sched_getaffinity(0)),
        "processor": model[0] if model else platform.machine(),
        "memory_gib": round(int(memory) / (1 << 20), 1),
        "kernel": platform.release(),
        "file_system": file_system,
    }


def load():
    """How busy the machine was before: a figure taken beside other work is none."""
    return os.getloadavg()[0]


def first_line(command):
    """What a program says of its version, or that it is not there."""
    try:
        done = subprocess.run(list(map(str, command)), capture_output=True, text=True)
    except OSError:
        return "not there"
    return (done.stdout or done.stderr).strip().splitlines()[0]


def packages(python, names):
    """The versions of Python packages in an environment."""
    text = "import importlib.metadata, sys; print('\\n'.join(importlib.metadata.version(n) for n in sys.argv[1:]))"
    done = subprocess.run([python, "-c", text, *names], capture_output=True, text=True, check=True)
    return dict(zip(names, done.stdout.split()))
