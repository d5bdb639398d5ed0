#!/usr/bin/env python3
"""Compares the answers of TPC-H's queries that the worker left in lakes with DuckDB's over the same data.

    compare.py DATA LAKES [--scale N] [--query NUMBER]...

DATA holds the tables as NAME.parquet, LAKES a lake qNN for each query. Prints one line for each query; exits with 1 when
an answer differs. Needs the package duckdb: run it with the Python that `dev/setup duckdb` prepares.

Rows are compared as a whole and exactly, their order only by the columns that the query orders by. Where DuckDB has no
decimal to compare with, since its avg and / give a double, the worker's decimal must be that double within one unit of
its last digit: DIVIDED lists these columns, and a double anywhere else is a difference.
"""

import argparse
import collections
import decimal
import json
import pathlib
import re
import sys

QUERIES = pathlib.Path(__file__).parent / "queries"
TABLES = ["customer", "lineitem", "nation", "orders", "part", "partsupp", "region", "supplier"]
DIVIDED = {
    1: {"avg_qty", "avg_price", "avg_disc"},
    8: {"mkt_share"},
    14: {"promo_revenue"},
    17: {"avg_yearly"},
}
DIFFERENCES_SHOWN = 3
# DuckDB sums a double from exact parts, so that only its last bits are in doubt.
DOUBLE_ERROR = decimal.Decimal("1e-13")


def sql(number, scale):
    """A query's text at a scale factor: the fraction in the eleventh depends on it."""
    text = (QUERIES / f"q{number:02}.sql").read_text()
    return text.replace("0.0001", f"{decimal.Decimal('0.0001') / decimal.Decimal(scale):f}", 2) if number == 11 else text


def order_of(text):
    """The columns that a query orders its rows by."""
    found = re.search(r"\nORDER BY ([^\n]*)", text)
    return [column.strip().removesuffix(" DESC") for column in found.group(1).split(",")] if found else []


def lake_rows(connection, lake):
    """The columns and rows of a lake, as its manifest says."""
    files = json.loads((lake / "_report/latest.json").read_text())["files"]
    paths = [str(lake / file["path"]) for file in files]
    if not paths:
        return None, []
    answer = connection.execute("SELECT * FROM read_parquet($1)", [paths])
    return [column[0] for column in answer.description], answer.fetchall()


def same_value(ours, theirs, is_divided):
    if isinstance(theirs, float):
        if not is_divided or not isinstance(ours, decimal.Decimal):
            return False
        unit = decimal.Decimal(1).scaleb(ours.as_tuple().exponent)
        return abs(ours - decimal.Decimal(theirs)) <= unit + abs(ours) * DOUBLE_ERROR
    return ours == theirs


def difference(number, columns, ours, theirs, theirs_columns, text):
    """What differs between two answers, or None."""
    if len(ours) != len(theirs):
        return f"{len(ours)} rows, DuckDB has {len(theirs)}"
    if not ours:
        return None
    if columns != theirs_columns:
        return f"the columns are {columns}, DuckDB's are {theirs_columns}"
    divided = [column in DIVIDED.get(number, ()) for column in columns]
    keys = [columns.index(column) for column in order_of(text)]
    for place, (our, their) in enumerate(zip(ours, theirs)):
        if [our[key] for key in keys] != [their[key] for key in keys]:
            return f"row {place} by its order: {our}, DuckDB has {their}"
    if any(divided):
        # Such answers have few rows and an order, or one row.
        pairs = zip(ours, theirs)
        wrong = [p for p in pairs if not all(map(same_value, *p, divided))]
        return f"rows differ: {wrong[:DIFFERENCES_SHOWN]}" if wrong else None
    if any(isinstance(value, float) for row in theirs for value in row):
        return "DuckDB gives a double: add the column to DIVIDED, or cast it in the query"
    ours, theirs = collections.Counter(ours), collections.Counter(theirs)
    if ours == theirs:
        return None
    return f"only ours: {list(ours - theirs)[:DIFFERENCES_SHOWN]}, only DuckDB's: {list(theirs - ours)[:DIFFERENCES_SHOWN]}"


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=pathlib.Path)
    parser.add_argument("lakes", type=pathlib.Path)
    parser.add_argument("--scale", default="1")
    parser.add_argument("--query", type=int, action="append")
    arguments = parser.parse_args()
    import duckdb  # here, so that who only wants a query's text needs no duckdb

    connection = duckdb.connect()
    for table in TABLES:
        connection.execute(f"CREATE VIEW {table} AS FROM read_parquet('{arguments.data / table}.parquet')")
    differ = 0
    for number in arguments.query or range(1, 23):
        text = sql(number, arguments.scale)
        columns, ours = lake_rows(connection, arguments.lakes / f"q{number:02}")
        answer = connection.execute(text)
        theirs_columns, theirs = [column[0] for column in answer.description], answer.fetchall()
        wrong = difference(number, columns, ours, theirs, theirs_columns, text)
        differ += wrong is not None
        print(f"q{number:02}: {wrong or f'{len(ours)} rows, the same'}", flush=True)
    sys.exit(1 if differ else 0)


if __name__ == "__main__":
    main()
