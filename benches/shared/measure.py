"""Runs a command and measures it: seconds, CPU seconds and peak memory of its whole process tree.

A memory limit is a control group's (version 1 or 2, which needs root), so that it is the kernel that enforces it. What
runs in other processes, such as a database server, is not counted.
"""

import contextlib
import dataclasses
import os
import pathlib
import signal
import subprocess
import sys
import tempfile
import threading
import time

MIB = 1 << 20
# Between two looks at the memory of a tree of processes. One process alone is measured by the kernel, exactly.
LOOK_SECONDS = 0.02
ERROR_BYTES_KEPT = 4000
PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")


@dataclasses.dataclass
class Measured:
    """What one run took. `code` is the exit code, or minus a signal."""

    seconds: float
    cpu_seconds: float
    peak_bytes: int
    code: int
    output: str


class NoGroup(Exception):
    """This machine makes no control group for us."""


@contextlib.contextmanager
def memory_group(limit_bytes):
    """A control group with a memory limit, removed at the end. Gives its folder, or None without a limit."""
    if limit_bytes is None:
        yield None
        return
    version_1 = pathlib.Path("/sys/fs/cgroup/memory")
    if version_1.is_dir():
        root, limits = version_1, {"memory.limit_in_bytes": limit_bytes, "memory.swappiness": 0}
    else:
        root, limits = pathlib.Path("/sys/fs/cgroup"), {"memory.max": limit_bytes, "memory.swap.max": 0}
    group = root / f"report-operator-bench-{os.getpid()}"
    try:
        if root != version_1:
            (root / "cgroup.subtree_control").write_text("+memory")
        group.mkdir()
        for name, value in limits.items():
            if (group / name).exists():  # a kernel without swap has no limit of it
                (group / name).write_text(str(value))
    except OSError as error:
        raise NoGroup(f"no control group with {limit_bytes // MIB} MiB: {error}; run this as root") from error
    try:
        yield group
    finally:
        with contextlib.suppress(OSError):
            group.rmdir()


def run(command, limit_bytes=None, environment=None, folder=None, timeout_seconds=3600):
    """Runs a command to its end. Its output is kept as its last bytes."""
    with memory_group(limit_bytes) as group, tempfile.TemporaryFile() as output:
        if group:
            command = ["sh", "-c", 'echo $$ > "$0/cgroup.procs" && exec "$@"', str(group), *command]
        started = time.perf_counter()
        process = subprocess.Popen(
            list(map(str, command)), env=environment, cwd=folder, stdin=subprocess.DEVNULL,
            stdout=output, stderr=subprocess.STDOUT, start_new_session=True,
        )
        tree = Tree(process.pid)
        late = threading.Timer(timeout_seconds, os.killpg, (process.pid, signal.SIGKILL))
        late.start()
        try:
            _, status, usage = os.wait4(process.pid, 0)
        except BaseException:  # stopped by a signal: nothing is left behind
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
            raise
        finally:
            late.cancel()
        seconds = time.perf_counter() - started
        process.returncode = os.waitstatus_to_exitcode(status)
        size = output.seek(0, os.SEEK_END)
        output.seek(max(0, size - ERROR_BYTES_KEPT))
        return Measured(
            seconds=seconds,
            cpu_seconds=usage.ru_utime + usage.ru_stime,
            # ru_maxrss is the largest process's of those that were waited for, in KiB.
            peak_bytes=max(tree.peak_bytes(), usage.ru_maxrss << 10),
            code=process.returncode,
            output=output.read().decode(errors="replace"),
        )


def stop_when_asked():
    """Ends this program by SIGTERM as by Ctrl-C, so that what it started ends too."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))


class Tree:
    """Looks at the memory of the processes of a session until there are none, and remembers the most."""

    def __init__(self, session):
        self._session, self._peak, self._stop = session, 0, threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self._thread.start()

    def peak_bytes(self):
        self._stop.set()
        self._thread.join()
        return self._peak

    def _watch(self):
        while not self._stop.wait(LOOK_SECONDS):
            self._peak = max(self._peak, sum(map(resident_bytes, self._processes())))

    def _processes(self):
        """Of one command there are few, and all descend from the first."""
        found, new = [], [self._session]
        while new:
            found += new
            new = [child for parent in new for child in children(parent)]
        return found


def children(process):
    found = []
    with contextlib.suppress(OSError):
        for task in os.listdir(f"/proc/{process}/task"):
            with contextlib.suppress(OSError):
                found += map(int, pathlib.Path(f"/proc/{process}/task/{task}/children").read_text().split())
    return found


def resident_bytes(process):
    try:
        return int(pathlib.Path(f"/proc/{process}/statm").read_text().split()[1]) * PAGE_BYTES
    except (OSError, IndexError):
        return 0
