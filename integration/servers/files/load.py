# SPDX-License-Identifier: Apache-2.0
#
# load.py KIND ADDRESS NAME: a client that keeps one connection and asks over it
# for ever. It writes how many answers it has had to /load/NAME.count, and the
# first error to /load/NAME.error, after which it ends: a connection that does
# not survive is an error.
import http.client
import os
import socket
import sys
import time

kind, address, name = sys.argv[1:4]


def http_client(address):
    host, path = address.split("/", 1)
    connection = http.client.HTTPConnection(host, timeout=60)
    connection.connect()
    connection.auto_open = 0  # never again
    want = None
    while True:
        connection.request("GET", "/" + path)
        answer = connection.getresponse()
        body = answer.read()
        if answer.status != 200:
            raise Exception("status %d" % answer.status)
        if want is None:
            want = body
        if body != want or not body:
            raise Exception("another body: %r" % body[:100])
        if answer.will_close:
            raise Exception("the server does not keep the connection")
        yield


def line_client(address, ask, check):
    host, port = address.split(":")
    stream = socket.create_connection((host, int(port)), timeout=60).makefile("rwb")
    n = 0
    while True:
        n += 1
        stream.write(ask(n))
        stream.flush()
        answer = stream.readline()
        if not check(n, answer, stream):
            raise Exception("answer %d is %r" % (n, answer))
        yield


def redis(address):
    key = name.encode()
    return line_client(address, lambda n: b"INCR " + key + b"\r\n", lambda n, a, s: a == b":%d\r\n" % n)


def memcached(address):
    key = name.encode()
    return line_client(
        address,
        lambda n: b"set %s 0 0 10\r\n%010d\r\nget %s\r\n" % (key, n, key),
        lambda n, a, s: a == b"STORED\r\n" and s.readline().startswith(b"VALUE") and s.readline() == b"%010d\r\n" % n and s.readline() == b"END\r\n",
    )


def put(suffix, text):
    path = "/load/%s.%s" % (name, suffix)
    with open(path + ".new", "w") as f:
        f.write(text)
    os.rename(path + ".new", path)


try:
    for count, _ in enumerate({"http": http_client, "redis": redis, "memcached": memcached}[kind](address), 1):
        put("count", "%d\n" % count)
        time.sleep(0.001)
except Exception as e:
    put("error", "%s: %r\n" % (name, e))
