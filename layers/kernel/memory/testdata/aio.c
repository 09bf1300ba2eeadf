// SPDX-License-Identifier: Apache-2.0
//
// Asynchronous I/O by io_setup(2), without libaio: a ring with completed requests
// that are not fetched, one that has wrapped around, and an empty one on which a
// thread waits. argv[1] is a file.
#define _GNU_SOURCE
#include <fcntl.h>
#include <linux/aio_abi.h>
#include <pthread.h>
#include <stdint.h>
#include <sys/syscall.h>

#include "kerneltest.h"

static aio_context_t unfetched, wrapped, waiting;
static int fd;
static char buf[4096];
static volatile long fetched;
static uint64_t next = 1;

static void submit(aio_context_t ctx, uint64_t data, int n) {
  struct iocb cb = {.aio_data = data, .aio_lio_opcode = IOCB_CMD_PREAD, .aio_fildes = fd, .aio_buf = (uintptr_t)buf, .aio_nbytes = n};
  struct iocb *list = &cb;
  CHECK(syscall(SYS_io_submit, ctx, 1, &list) == 1);
}

static void fetch(aio_context_t ctx, uint64_t data, long res) {
  struct io_event e = {};
  struct timespec soon = {5, 0};
  CHECK(syscall(SYS_io_getevents, ctx, 1, 1, &e, &soon) == 1 && e.data == data && e.res == res, "event %llu, result %lld", e.data, e.res);
}

static void *waits(void *arg) {
  for (;;) {
    struct io_event e;
    if (syscall(SYS_io_getevents, waiting, 1, 1, &e, NULL) != 1) fail("the waiting thread: errno %d", errno);
    fetched = e.data;
  }
  return arg;
}

static void verify(void) {
  for (int i = 0; i < 5; i++) { // and back into the ring
    fetch(unfetched, next + i, 100 + (next + i) % 7);
    submit(unfetched, next + 5 + i, 100 + (next + 5 + i) % 7);
  }
  next += 5;
  submit(wrapped, next, 77);
  fetch(wrapped, next, 77);
  struct io_event e;
  struct timespec now = {};
  CHECK(syscall(SYS_io_getevents, wrapped, 1, 1, &e, &now) == 0, "an event that nobody asked for");
  submit(waiting, next, 1);
  for (int i = 0; i < 5000 && fetched != (long)next; i++) usleep(1000);
  CHECK(fetched == (long)next, "the thread waits for another ring");
}

int main(int argc, char **argv) {
  fd = open(argv[1], O_RDWR | O_CREAT, 0600);
  MUST(fd >= 0 && pwrite(fd, buf, sizeof buf, 0) == sizeof buf);
  MUST(syscall(SYS_io_setup, 100, &unfetched) == 0 && syscall(SYS_io_setup, 1, &wrapped) == 0 && syscall(SYS_io_setup, 1000, &waiting) == 0);
  for (int i = 0; i < 5; i++) submit(unfetched, next + i, 100 + (next + i) % 7);
  for (int i = 0; i < 200; i++) submit(wrapped, i, 7), fetch(wrapped, i, 7);
  pthread_t t;
  MUST(pthread_create(&t, NULL, waits, NULL) == 0);
  serve(verify);
}
