// SPDX-License-Identifier: Apache-2.0
//
// epoll: data, edge and one-shot registrations, one that has fired, ones whose
// number is closed or another file's, nested instances, exclusive ones.
#define _GNU_SOURCE
#include <fcntl.h>
#include <stdint.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include "kerneltest.h"

static int ep, inner, level, edge, shot, spent, moved, reused, deep, exclusive, self_number;

static void add(int e, int fd, uint32_t events, uint64_t data) {
  struct epoll_event v = {.events = events, .data.u64 = data};
  MUST(epoll_ctl(e, EPOLL_CTL_ADD, fd, &v) == 0);
}

static void kick(int fd) {
  uint64_t one = 1;
  CHECK(write(fd, &one, 8) == 8);
}

static void drain(int fd) {
  uint64_t n;
  CHECK(read(fd, &n, 8) == 8);
}

// ready returns the set of data that is reported, as bits.
static unsigned ready_set(void) {
  struct epoll_event v[16];
  unsigned set = 0;
  int n = epoll_wait(ep, v, 16, 0);
  CHECK(n >= 0);
  for (int i = 0; i < n; i++) {
    CHECK(v[i].data.u64 >> 8 == 0xabcdef0123, "data");
    set |= 1u << (v[i].data.u64 & 0xff);
  }
  return set;
}

#define DATA(bit) (0xabcdef0123ULL << 8 | (bit))

static void verify(void) {
  unsigned s;
  CHECK((s = ready_set()) == 0, "%x", s);
  int *fds[] = {&level, &edge, &moved, &reused, &deep, &exclusive, &self_number};
  for (int i = 0; i < 7; i++) {
    kick(*fds[i]);
    CHECK((s = ready_set()) == 1u << (i + 1), "%d: %x", i, s);
    if (fds[i] == &edge) CHECK((s = ready_set()) == 0, "an edge: %x", s);
    drain(*fds[i]);
    CHECK((s = ready_set()) == 0, "%d: %x", i, s);
  }
  // Fires once, and is armed again.
  kick(shot);
  CHECK((s = ready_set()) == 1u << 8, "%x", s);
  CHECK((s = ready_set()) == 0, "%x", s);
  struct epoll_event v = {.events = EPOLLIN | EPOLLONESHOT, .data.u64 = DATA(8)};
  drain(shot);
  CHECK(epoll_ctl(ep, EPOLL_CTL_MOD, shot, &v) == 0);
  // Has fired before: reports nothing until it is armed.
  kick(spent);
  CHECK((s = ready_set()) == 0, "%x", s);
  v.data.u64 = DATA(9);
  CHECK(epoll_ctl(ep, EPOLL_CTL_MOD, spent, &v) == 0);
  CHECK((s = ready_set()) == 1u << 9, "%x", s);
  drain(spent);
}

int main(void) {
  int *fds[] = {&level, &edge, &shot, &spent, &moved, &reused, &deep, &exclusive, &self_number};
  for (int i = 0; i < 9; i++) MUST((*fds[i] = eventfd(0, EFD_NONBLOCK)) >= 0);
  MUST((ep = epoll_create1(EPOLL_CLOEXEC)) >= 0 && (inner = epoll_create1(0)) >= 0);
  add(ep, level, EPOLLIN, DATA(1));
  add(ep, edge, EPOLLIN | EPOLLET, DATA(2));
  add(ep, shot, EPOLLIN | EPOLLONESHOT, DATA(8));
  add(ep, spent, EPOLLIN | EPOLLONESHOT, DATA(9));
  kick(spent);
  struct epoll_event v;
  MUST(epoll_wait(ep, &v, 1, 0) == 1 && v.data.u64 == DATA(9));
  drain(spent);
  // Has fired, and its file has hung up since: armed for anything, it reports.
  int hup[2];
  MUST(pipe(hup) == 0 && write(hup[1], "x", 1) == 1);
  add(ep, hup[0], EPOLLIN | EPOLLONESHOT, DATA(10));
  MUST(epoll_wait(ep, &v, 1, 0) == 1 && v.data.u64 == DATA(10));
  close(hup[1]);
  // Registered under a number that is closed, by a description that lives on.
  add(ep, moved, EPOLLIN, DATA(3));
  int n = fcntl(moved, F_DUPFD, 50);
  close(moved);
  moved = n;
  // The same, and the number is another file's now.
  add(ep, reused, EPOLLIN, DATA(4));
  n = fcntl(reused, F_DUPFD, 50);
  int null = open("/dev/null", O_RDONLY);
  MUST(dup2(null, reused) == reused);
  reused = n;
  // Registered twice: under its own number and one that is gone.
  add(inner, deep, EPOLLIN, 1);
  n = dup(deep);
  add(inner, n, EPOLLIN, 2);
  close(n);
  add(ep, inner, EPOLLIN, DATA(5));
  add(ep, exclusive, EPOLLIN | EPOLLEXCLUSIVE, DATA(6));
  // The number is the epoll instance's own by now.
  add(ep, self_number, EPOLLIN, DATA(7));
  n = fcntl(self_number, F_DUPFD, 50);
  MUST(dup2(ep, self_number) == self_number);
  close(ep);
  ep = self_number;
  MUST(fcntl(ep, F_SETFD, FD_CLOEXEC) == 0);
  self_number = n;
  serve(verify);
}
