#!/usr/bin/env python3
"""Peer: ADBC's PostgreSQL driver reads a table by binary COPY, DuckDB writes its Arrow batches to Parquet.

    adbc_to_parquet.py URL SELECT CONVERSION COPY_OPTIONS FILE

The driver gives numeric as text, since PostgreSQL's has no scale: CONVERSION, a list of columns, casts it back.
"""

import sys

import adbc_driver_postgresql.dbapi
import duckdb

url, select, conversion, options, path = sys.argv[1:]
with adbc_driver_postgresql.dbapi.connect(url) as source, source.cursor() as cursor:
    cursor.execute(select)
    rows = cursor.fetch_record_batch()
    connection = duckdb.connect()
    connection.register("rows", rows)
    connection.execute(f"COPY (SELECT {conversion} FROM rows) TO '{path}' ({options})")
