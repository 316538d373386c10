"""Everything that aperio left of some tables, read without aperio; see common.py.

Called as `read_state.py '[{"catalog": …, "table": "namespace.name", "sync_points": path}, …]'`; prints one JSON array:
for each table its `ids`, `letters` (as "partition/offset"), `ledger` (empty if the newest snapshot has none) and
`sync_points` (offset by partition), the data `files` of the newest snapshot and the `total` of records that it tells, and
what no snapshot names: `orphans` (data files), `letter_orphans`, `metadata_orphans` (metadata.json), `manifest_orphans`.
With "whole": true in a request also its `rows`, its `columns` and those of all its `schemas`, each a list of field id, name
and type.
"""

import json
import pathlib
import re
import sys

import pyarrow.parquet
from pyiceberg.catalog import load_catalog
from pyiceberg.exceptions import NoSuchTableError

import common


def path(location):
    # Java writes `file:/tmp`, others `file:///tmp` or `/tmp`.
    return re.sub("^file:/+", "/", location)


def files(table, folder, pattern):
    return {str(found) for found in (pathlib.Path(path(table.location())) / folder).rglob(pattern)}


def named_files(table):
    return {path(task.file.file_path) for task in table.scan().plan_files()}


def data_orphans(table):
    return sorted(files(table, "data", "*.parquet") - named_files(table))


def manifest_orphans(table):
    named = set()
    for snapshot in table.metadata.snapshots:
        named.add(path(snapshot.manifest_list))
        named.update(path(manifest.manifest_path) for manifest in snapshot.manifests(table.io))
    return sorted(files(table, "metadata", "*.avro") - named)


def metadata_orphans(table):
    named = {path(entry.metadata_file) for entry in table.metadata.metadata_log} | {path(table.metadata_location)}
    return sorted(files(table, "metadata", "*.metadata.json") - named)


def ledger(table):
    summary = table.current_snapshot().summary.additional_properties
    return json.loads(summary.get("aperio.ledger", '{"offsets": {}}'))["offsets"]


def sync_points(file, source):
    rows = pyarrow.parquet.read_table(file).to_pylist()
    return {
        row["sync_key"].removeprefix("partition:"): int(row["sync_value"])
        for row in rows
        if row["source_name"] == source
    }


def columns(schema):
    # Of the oldest ids first, those inside others too.
    return [
        [field, schema.find_column_name(field), str(schema.find_field(field).field_type)]
        for field in sorted(schema.field_ids)
    ]


def whole(table):
    return {
        "rows": table.scan().to_arrow().to_pylist(),
        "columns": columns(table.schema()),
        "schemas": [columns(schema) for schema in table.schemas().values()],
    }


def state(request):
    properties = dict(request["catalog"])
    catalog = load_catalog(properties.pop("name", "rest"), **properties)
    table = catalog.load_table(request["table"])
    rows = table.scan(selected_fields=("id",)).to_arrow()
    try:
        side = catalog.load_table(request["table"] + "_dead_letters")
        letters = side.scan(selected_fields=("partition", "offset")).to_arrow().to_pylist()
        letter_orphans = data_orphans(side)
    except NoSuchTableError:
        letters, letter_orphans = [], []
    return {
        "ids": rows["id"].to_pylist(),
        "letters": [f"{letter['partition']}/{letter['offset']}" for letter in letters],
        "ledger": ledger(table),
        "files": sorted(named_files(table)),
        "total": int(table.current_snapshot().summary.additional_properties["total-records"]),
        "sync_points": sync_points(request["sync_points"], request["table"].rsplit(".", 1)[1]),
        "orphans": data_orphans(table),
        "letter_orphans": letter_orphans,
        "metadata_orphans": metadata_orphans(table),
        "manifest_orphans": manifest_orphans(table),
        **(whole(table) if request.get("whole") else {}),
    }


common.answer([state(request) for request in json.loads(sys.argv[1])])
