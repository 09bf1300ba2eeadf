// SPDX-License-Identifier: Apache-2.0
//
// Waits that return EINTR, not a restart code, when a stop interrupts them. The
// descriptors last only while the program is left running.
#define _GNU_SOURCE
#include <pthread.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/time.h>

#include "kerneltest.h"

static volatile int waits, failed;

static void *epoll(void *arg) {
  int ep = epoll_create1(0), timeout = (int)(long)arg;
  struct epoll_event e;
  for (;; waits++)
    if (epoll_wait(ep, &e, 1, timeout) != 0) failed = errno ? errno : 1;
}

static void *receive(void *arg) {
  int s[2];
  char c;
  MUST(socketpair(AF_UNIX, SOCK_STREAM, 0, s) == 0);
  struct timeval tv = {.tv_usec = 50000};
  setsockopt(s[0], SOL_SOCKET, SO_RCVTIMEO, &tv, sizeof tv);
  for (;; waits++)
    if (recv(s[0], &c, 1, 0) >= 0 || errno != EAGAIN) failed = errno ? errno : 1;
}

static void verify(void) {
  int n = waits;
  for (int i = 0; i < 100 && waits < n + 4; i++) usleep(20000);
  CHECK(waits >= n + 4, "waits stand still");
  CHECK(!failed, "a wait failed with %d", failed);
}

int main(void) {
  pthread_t t;
  pthread_create(&t, NULL, epoll, (void *)-1);
  pthread_create(&t, NULL, epoll, (void *)50);
  pthread_create(&t, NULL, receive, NULL);
  usleep(10000);
  serve(verify);
}
