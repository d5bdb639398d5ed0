"""Where the benches find and keep things, all outside of the repository but for the results."""

import os
import pathlib
import sys

HERE = pathlib.Path(__file__).resolve().parents[1]
CACHE = pathlib.Path(
    os.environ.get("REPORT_CACHE")
    or pathlib.Path(os.environ.get("XDG_CACHE_HOME") or pathlib.Path.home() / ".cache") / "report-operator"
)
TARGET = pathlib.Path(os.environ.get("CARGO_TARGET_DIR") or CACHE / "target")
PEERS = CACHE / "peers/bin"
PYTHON = PEERS / "python"
# The user postgres has to reach its folder, which below root's home it does not.
STATE = pathlib.Path(
    os.environ.get("BENCH_STATE")
    or ("/var/lib/report-operator-bench" if os.getuid() == 0 else CACHE / "bench")
)
DATA = STATE / "data"
RESULTS = HERE / "results"


def worker():
    """The worker to measure: BENCH_WORKER, or the release build."""
    path = pathlib.Path(os.environ.get("BENCH_WORKER") or TARGET / "release/etl-worker")
    if not path.exists():
        sys.exit(f"{path} is not there: run 'cargo build --release --package etl-worker'")
    return path
