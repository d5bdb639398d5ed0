#!/usr/bin/env python3
"""Peer: dlt loads a CSV file into PostgreSQL, replacing the table, by the quickest way that it has: Arrow batches with
the types of the columns, extracted and normalised as Arrow, and loaded as CSV by COPY.

    dlt_load.py URL TABLE FILE COLUMNS FOLDER

COLUMNS is JSON, from names to the worker's types. FOLDER is for dlt's own files.
"""

import json
import sys

import dlt
import pyarrow
import pyarrow.csv

url, table, path, columns, folder = sys.argv[1:]
TYPES = {"int64": pyarrow.int64(), "int32": pyarrow.int32(), "string": pyarrow.string(), "date": pyarrow.date32(),
         "decimal(15,2)": pyarrow.decimal128(15, 2)}
types = {name: TYPES[type_] for name, type_ in json.loads(columns).items()}


@dlt.resource(name=table, write_disposition="replace")
def rows():
    options = pyarrow.csv.ConvertOptions(column_types=types)
    read = pyarrow.csv.ReadOptions(block_size=16 << 20)
    with pyarrow.csv.open_csv(path, read_options=read, convert_options=options) as reader:
        for batch in reader:
            yield pyarrow.Table.from_batches([batch])


pipeline = dlt.pipeline("bench", destination=dlt.destinations.postgres(url), dataset_name="public", pipelines_dir=folder)
pipeline.run(rows(), loader_file_format="csv")
