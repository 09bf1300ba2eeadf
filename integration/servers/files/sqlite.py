# SPDX-License-Identifier: Apache-2.0
#
# Three writers of one database in WAL mode, and a count of what they wrote.
import os
import sqlite3
import threading
import time

lock, total = threading.Lock(), 0


def put(suffix, text):
    with open("/load/sqlite.new", "w") as f:
        f.write(text)
    os.rename("/load/sqlite.new", "/load/sqlite." + suffix)


def write():
    global total
    try:
        db = sqlite3.connect("/load/data.db", timeout=60)
        while True:
            with db:
                n = time.monotonic_ns() % 1000000
                db.execute("insert into t (a, b) values (?, ?)", (n, -n))
            with lock:
                total += 1
                put("count", "%d\n" % total)
            time.sleep(0.005)
    except Exception as e:
        put("error", repr(e) + "\n")


db = sqlite3.connect("/load/data.db")
db.execute("pragma journal_mode = wal")
db.execute("create table t (id integer primary key autoincrement, a, b)")
db.commit()
threads = [threading.Thread(target=write) for _ in range(3)]
for t in threads:
    t.start()
for t in threads:
    t.join()
