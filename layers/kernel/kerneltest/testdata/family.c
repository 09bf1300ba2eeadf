// SPDX-License-Identifier: Apache-2.0
//
// A parent and three children that talk over pipes and socket pairs, with data
// on their way all the time, and a parent that is told when a child ends.
#define _GNU_SOURCE
#include <fcntl.h>
#include <signal.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <sys/wait.h>

#include "kerneltest.h"

enum { CHILDREN = 3, QUEUED = 5000 };
struct child { pid_t pid; int to, from, pair, rounds; };
static struct child children[CHILDREN];
static int both;   // an eventfd that all have
static int poller; // an epoll instance that all have: the first child registers its end of the pair
static int file;   // whose offset all share
static volatile int told, teller, status;

static void on_child(int sig, siginfo_t *si, void *ctx) {
  told++;
  teller = si->si_pid;
  status = si->si_status;
}

static void put(int fd, int n, int seed) {
  unsigned char b[QUEUED];
  for (int i = 0; i < n; i++) b[i] = seed + i * 7;
  CHECK(write(fd, b, n) == n);
}

static void get(int fd, int n, int seed) {
  unsigned char b[QUEUED];
  for (int got = 0; got < n;) {
    ssize_t r = read(fd, b + got, n - got);
    CHECK(r > 0);
    if (r <= 0) return;
    got += r;
  }
  for (int i = 0; i < n; i++) {
    CHECK(b[i] == (unsigned char)(seed + i * 7), "byte %d", i);
    if (fails[0]) return;
  }
}

static void child(int n, int in, int out, int pair) {
  if (n == 0) {
    struct epoll_event e = {.events = EPOLLIN, .data.u64 = 77};
    MUST(epoll_ctl(poller, EPOLL_CTL_ADD, pair, &e) == 0);
  }
  put(out, 100, n); // unread from the start
  put(pair, QUEUED, n + 1);
  for (int round = 1;; round++) {
    char c;
    if (read(in, &c, 1) != 1) _exit(90);
    if (c == 'x') _exit(40 + n);
    CHECK(getppid() == 1);
    unsigned long long one = 1;
    CHECK(write(both, &one, 8) == 8);
    CHECK(write(file, &c, 1) == 1);
    get(pair, 10, round); // was sent before the command
    if (fails[0]) dprintf(2, "child %d: %s\n", n, fails);
    struct { int pid, round, bad; } a = {getpid(), round, fails[0] != 0};
    if (write(out, &a, sizeof a) != sizeof a) _exit(91);
    put(out, 100, n);
    put(pair, QUEUED, n + 1);
  }
}

static void start(int n) {
  int to[2], from[2], pair[2];
  MUST(pipe(to) == 0 && pipe(from) == 0 && socketpair(AF_UNIX, SOCK_STREAM, 0, pair) == 0);
  pid_t pid = fork();
  MUST(pid >= 0);
  if (pid == 0) {
    close(to[1]);
    close(from[0]);
    close(pair[0]);
    child(n, to[0], from[1], pair[1]);
  }
  close(to[0]);
  close(from[1]);
  close(pair[1]);
  children[n] = (struct child){.pid = pid, .to = to[1], .from = from[0], .pair = pair[0]};
}

static void talk(int n) {
  struct child *c = &children[n];
  get(c->from, 100, n); // was sent before the checkpoint
  get(c->pair, QUEUED, n + 1);
  c->rounds++;
  put(c->pair, 10, c->rounds);
  if (n == 0) {
    struct epoll_event e = {0};
    CHECK(epoll_wait(poller, &e, 1, 5000) == 1 && e.data.u64 == 77);
  }
  CHECK(write(c->to, "t", 1) == 1);
  struct { int pid, round, bad; } a;
  CHECK(read(c->from, &a, sizeof a) == sizeof a);
  CHECK(a.pid == c->pid && a.round == c->rounds && !a.bad, "pid %d round %d bad %d", a.pid, a.round, a.bad);
}

static off_t written;

static void verify(void) {
  for (int n = 0; n < CHILDREN; n++) talk(n);
  unsigned long long sum = 0;
  CHECK(read(both, &sum, 8) == 8 && sum == CHILDREN, "sum %llu", sum);
  written += CHILDREN;
  CHECK(lseek(file, 0, SEEK_CUR) == written, "offset %ld", (long)lseek(file, 0, SEEK_CUR));
  // The last one ends; the parent is told once, by the right one.
  struct child *c = &children[CHILDREN - 1];
  int before = told;
  CHECK(write(c->to, "x", 1) == 1);
  int st = 0;
  pid_t pid;
  do pid = waitpid(c->pid, &st, 0);
  while (pid < 0 && errno == EINTR);
  CHECK(pid == c->pid && WIFEXITED(st) && WEXITSTATUS(st) == 40 + CHILDREN - 1, "status %x", st);
  CHECK(told == before + 1 && teller == c->pid && status == 40 + CHILDREN - 1, "told %d times by %d", told - before, teller);
  close(c->to);
  close(c->from);
  close(c->pair);
  start(CHILDREN - 1);
  usleep(20000); // until it has sent its first data
}

int main(int argc, char **argv) {
  struct sigaction sa = {.sa_sigaction = on_child, .sa_flags = SA_SIGINFO | SA_RESTART};
  MUST(sigaction(SIGCHLD, &sa, NULL) == 0);
  MUST((both = eventfd(0, 0)) >= 0 && (poller = epoll_create1(0)) >= 0);
  MUST(argc > 1 && (file = open(argv[1], O_RDWR | O_CREAT | O_TRUNC, 0600)) >= 0);
  for (int n = 0; n < CHILDREN; n++) start(n);
  usleep(100000);
  serve(verify);
}
