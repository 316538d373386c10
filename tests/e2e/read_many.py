"""Reads many tables in one process; see common.py.

The argument is `{"catalog": …, "reads": [{"engine": "duckdb" | "pyiceberg", "table": …, "filter": …}, …]}`; the answer
is a list of `{"rows": […], "files": n, "total": n, "schema": …}`. `files` is the number of data files that PyIceberg plans
to read for the filter, `total` the records that the newest snapshot tells of, `schema` the table's current schema; DuckDB
tells none of them.
"""

import importlib
import pathlib

import duckdb
from pyiceberg.catalog import load_catalog

import common

request = common.request()
connection = duckdb.connect()
connection.execute("set timezone = 'UTC'")
for extension in ("avro", "httpfs", "iceberg"):
    package = pathlib.Path(importlib.import_module(f"duckdb_extension_{extension}").__file__).parent
    connection.load_extension(str(next(package.rglob("*.duckdb_extension"))))
properties = dict(request["catalog"])
catalog = load_catalog(properties.pop("name", "rest"), **properties)


def duckdb_rows(table, condition):
    location = common.metadata_location(request["catalog"], table).removeprefix("file://")
    where = f" where {condition}" if condition else ""
    query = connection.execute(f"select * from iceberg_scan(?){where}", [location])
    return {"rows": query.to_arrow_table().to_pylist()}


def pyiceberg_rows(table, condition):
    table = catalog.load_table(table)
    scan = table.scan(row_filter=condition) if condition else table.scan()
    newest = table.current_snapshot()
    total = int(newest.summary.additional_properties.get("total-records", 0)) if newest else 0
    fields = {field.name: str(field.field_type) for field in table.schema().fields}
    files = len(list(scan.plan_files()))
    return {"rows": scan.to_arrow().to_pylist(), "files": files, "total": total, "schema": fields}


def read(engine, table, condition):
    try:
        return (duckdb_rows if engine == "duckdb" else pyiceberg_rows)(table, condition)
    except Exception as error:
        raise RuntimeError(f"{engine} can't read {table} where {condition}") from error


common.answer([read(one["engine"], one["table"], one.get("filter")) for one in request["reads"]])
