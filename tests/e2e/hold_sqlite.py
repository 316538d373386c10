"""Holds the write lock of a SQLite file: hold_sqlite.py FILE SECONDS TIMES, half a second apart."""

import sqlite3
import sys
import time

file, seconds, times = sys.argv[1], float(sys.argv[2]), int(sys.argv[3])
for _ in range(times):
    connection = sqlite3.connect(file, timeout=60, isolation_level=None)
    connection.execute("begin immediate")
    time.sleep(seconds)
    connection.execute("rollback")
    connection.close()
    time.sleep(0.5)
