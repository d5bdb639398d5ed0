#!/usr/bin/env python3
"""Peer: DuckDB executes one statement, such as COPY … TO a Parquet file.

    duckdb_copy.py SQL
"""

import sys

import duckdb

duckdb.connect().execute(sys.argv[1])
