"""Runs SQL statements in one Spark session, in order; see common.py and spark_session.py.

The argument holds `statements` instead of a table; the catalog is the current one. Prints the rows of each statement.
"""

import json
import sys

import common
import spark_session

request = common.request()
catalog = request["catalog"]
spark = spark_session.session(catalog)
spark.sql(f"USE {spark_session.catalog_name(catalog)}.default")
answers = []
for statement in request["statements"]:
    print(statement, file=sys.stderr)
    answers.append([json.loads(row) for row in spark.sql(statement).toJSON().collect()])
json.dump(answers, sys.stdout)
