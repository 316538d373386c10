"""Removes a table property with PyIceberg; see common.py. The argument names it as `property`."""

from pyiceberg.catalog import load_catalog

import common

request = common.request()
properties = dict(request["catalog"])
catalog = load_catalog(properties.pop("name", "rest"), **properties)
with catalog.load_table(request["table"]).transaction() as transaction:
    transaction.remove_properties(request["property"])
common.answer([])
