"""Reads a table with PyIceberg; see common.py."""

from pyiceberg.catalog import load_catalog

import common

request = common.request()
properties = dict(request["catalog"])
name = properties.pop("name", "rest")
table = load_catalog(name, **properties).load_table(request["table"])
scan = table.scan(row_filter=request["filter"]) if request.get("filter") else table.scan()
common.answer(scan.to_arrow().to_pylist())
