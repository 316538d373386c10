"""One Spark session for many statements; see common.py and spark_session.py.

The argument holds only `catalog`, which is the current one. Each line of standard input is a statement, in JSON; for each a
line is printed that begins with `answer `: `{"rows": […]}`, or `{"error": "…"}`.
"""

import json
import sys

import common
import spark_session

catalog = common.request()["catalog"]
spark = spark_session.session(catalog)
spark.sql(f"USE {spark_session.catalog_name(catalog)}.default")
print("answer {}", flush=True)
for line in sys.stdin:
    try:
        rows = [json.loads(row) for row in spark.sql(json.loads(line)).toJSON().collect()]
        answer = {"rows": rows}
    except Exception as error:
        answer = {"error": str(error)}
    print("answer " + json.dumps(answer), flush=True)
