"""Reads a table with DuckDB; see common.py. The extensions come from PyPI too, so nothing is downloaded here."""

import importlib
import pathlib

import duckdb

import common

request = common.request()
connection = duckdb.connect()
for extension in ("avro", "httpfs", "iceberg"):
    package = pathlib.Path(importlib.import_module(f"duckdb_extension_{extension}").__file__).parent
    connection.load_extension(str(next(package.rglob("*.duckdb_extension"))))
location = common.metadata_location(request["catalog"], request["table"]).removeprefix("file://")
where = f" where {request['filter']}" if request.get("filter") else ""
what = request.get("select") or "*"
rows = connection.execute(f"select {what} from iceberg_scan(?){where}", [location]).to_arrow_table().to_pylist()
common.answer(rows)
