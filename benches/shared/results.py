"""Figures of several runs: what is printed and what is kept."""

import datetime
import json
import statistics

from . import places

MIB = 1 << 20


def spread(values):
    return {"min": min(values), "median": statistics.median(values), "max": max(values)}


def of_runs(runs):
    """The figures of one contender: of each the least, the median and the most."""
    return {
        "runs": len(runs),
        "seconds": rounded(spread([run.seconds for run in runs]), 2),
        "cpu_seconds": rounded(spread([run.cpu_seconds for run in runs]), 2),
        "peak_mib": rounded(spread([run.peak_bytes / MIB for run in runs]), 0),
    }


def rounded(figures, digits):
    return {name: round(value, digits) for name, value in figures.items()}


def ratio(name, ours, theirs):
    """How many times longer a peer took: the median of the ratios of each round, since a round's runs are neighbours."""
    pairs = [their.seconds / our.seconds for our, their in zip(ours, theirs)]
    figures = rounded(spread(pairs), 2)
    return {"name": name, "ratio": figures["median"], "min": figures["min"], "max": figures["max"]}


def keep(kind, content):
    """Writes results/KIND-TIME.json."""
    places.RESULTS.mkdir(exist_ok=True)
    now = datetime.datetime.now(datetime.timezone.utc)
    path = places.RESULTS / f"{kind}-{now:%Y%m%dT%H%M%SZ}.json"
    path.write_text(json.dumps({"taken": f"{now:%Y-%m-%dT%H:%M:%SZ}", **content}, indent=2) + "\n")
    print(f"kept in benches/results/{path.name}")


def table(rows):
    """Rows of texts as aligned columns; all but the first column to the right."""
    widths = [max(map(len, column)) for column in zip(*rows)]
    for row in rows:
        cells = [cell.ljust(width) if place == 0 else cell.rjust(width)
                 for place, (cell, width) in enumerate(zip(row, widths))]
        print("  ".join(cells).rstrip())


def between(figures, digits):
    """A median, and its range."""
    return f"{figures['median']:.{digits}f} ({figures['min']:.{digits}f}–{figures['max']:.{digits}f})"
