"""A table is replaced while somebody reads it all the time."""

import contextlib
import subprocess
import threading
import time

from shared import server, tpch

from .case import TARGET, Case, Contender, manifest, psql
from .into_postgres import CREATE, DATABASE, LIMIT_MIB, lineitem_is_there, lineitem_source

# Most polls look whether there are rows; counting all of them takes a core's time, so that only some do.
PEEK, PEEK_ROWS = "SELECT count(*) FROM (SELECT 1 FROM lineitem LIMIT 1000) AS some_rows;\n", "1000"
COUNT = "SELECT count(*) FROM lineitem;\n"
PAUSE_SECONDS = 0.01
COUNT_EVERY_SECONDS = 2.0


class Reader:
    """Polls a table in one session at READ COMMITTED, each poll a transaction of its own."""

    def __init__(self):
        self.figures = {"peeks": 0, "counts": 0, "errors": 0, "not_whole": 0, "longest_peek_seconds": 0.0}
        self._ready, self._stop = threading.Event(), threading.Event()
        self._thread = threading.Thread(target=self._poll)

    @contextlib.contextmanager
    def running(self):
        self._thread.start()
        self._ready.wait()  # the first count is made before anybody replaces
        try:
            yield self.figures
        finally:
            self._stop.set()
            self._thread.join()

    def _poll(self):
        # Without a terminal, psql prints one line for an answer; errors are made one line too.
        command = [server.programs() / "psql", server.url(TARGET), "-qXAt", "-v", "VERBOSITY=terse"]
        session = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                                   text=True, bufsize=1)
        figures, rows, counted = self.figures, ask(session, COUNT), time.monotonic()
        self._ready.set()
        while not self._stop.wait(PAUSE_SECONDS):
            started = time.monotonic()
            counts = started - counted > COUNT_EVERY_SECONDS
            answer = ask(session, COUNT if counts else PEEK)
            if "ERROR" in answer:
                figures["errors"] += 1
                figures["error"] = answer
            elif answer != (rows if counts else PEEK_ROWS):
                figures["not_whole"] += 1
            if counts:
                figures["counts"] += 1
                counted = time.monotonic()
            else:
                figures["peeks"] += 1
                wait = time.monotonic() - started
                figures["longest_peek_seconds"] = round(max(figures["longest_peek_seconds"], wait), 3)
        session.stdin.close()
        session.wait()


def ask(session, statement):
    session.stdin.write(statement)
    return session.stdout.readline().strip()


def replace_under_reader(scale):
    path, template = tpch.table("lineitem", scale, "csv"), "replace_template"
    spec = f"""
sources: [{lineitem_source(path)}]
sinks:
  - name: lineitem
    from: lineitem
    postgres: {{{DATABASE}, table: public.lineitem}}
    mode: {{replace: {{}}}}
    adopt: true
"""

    def prepare():
        server.fresh(template)
        server.psql(template, CREATE, rf"\copy lineitem FROM '{path}' (FORMAT csv, HEADER)", "VACUUM ANALYZE lineitem")

    return Case("replace_under_reader", [
        Contender("ours", "mode replace of a full table, which it adopts, by swap", manifest(spec), limit_mib=LIMIT_MIB),
        Contender("psql", r"TRUNCATE and \copy in one transaction",
                  lambda _: psql(TARGET, "BEGIN", "TRUNCATE lineitem",
                                 rf"\copy lineitem FROM '{path}' (FORMAT csv, HEADER)", "COMMIT")),
    ], lineitem_is_there, template=template, prepare=prepare, beside=lambda: Reader().running())
