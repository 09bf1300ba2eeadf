# SPDX-License-Identifier: Apache-2.0
#
# Processes and threads that pass work through queues, a shared counter, a
# shared array and a manager.
import hashlib
import multiprocessing
import os
import threading
import time


def put(name, suffix, text):
    path = "/load/%s.%s" % (name, suffix)
    with open(path + ".new", "w") as f:
        f.write(text)
    os.rename(path + ".new", path)


def work(tasks, results, total, array):
    while True:
        n = tasks.get()
        with total.get_lock():
            total.value += 1
        array[n % len(array)] = n
        results.put((n, hashlib.sha256(b"%d" % n).hexdigest()))


def ask(name, tasks, results, total, array):
    try:
        n = 0
        while True:
            for i in range(10):
                tasks.put(n + i)
            got = dict(results.get(timeout=60) for _ in range(10))
            for i in range(n, n + 10):
                if got.get(i) != hashlib.sha256(b"%d" % i).hexdigest():
                    raise Exception("%d is %r" % (i, got.get(i)))
            n += 10
            if total.value != n:
                raise Exception("the counter is %d, not %d" % (total.value, n))
            put(name, "count", "%d\n" % n)
            time.sleep(0.002)
    except Exception as e:
        put(name, "error", repr(e) + "\n")


def group(name):
    tasks, results = multiprocessing.Queue(), multiprocessing.Queue()
    total, array = multiprocessing.Value("q", 0), multiprocessing.Array("q", 64)
    for _ in range(3):
        multiprocessing.Process(target=work, args=(tasks, results, total, array), daemon=True).start()
    return threading.Thread(target=ask, args=(name, tasks, results, total, array))


if __name__ == "__main__":
    threads = [group("group%d" % i) for i in range(3)]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
