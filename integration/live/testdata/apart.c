/* SPDX-License-Identifier: Apache-2.0 */

/*
 * A program of which two threads have a descriptor table and directories in common, and
 * not with the process. Only they have the socket by which questions come. What they ask
 * each other and the process goes by descriptors that only one side has.
 */
#include "control.h"

#include <fcntl.h>
#include <pthread.h>
#include <sched.h>
#include <stdint.h>
#include <sys/epoll.h>
#include <sys/mman.h>
#include <sys/syscall.h>

enum { KCMP_FILES = 2, KCMP_FS = 3 };
/* Numbers. PLACE is a file of the process and a socket of the threads. */
enum { PLACE = 50, OTHER, NOTES, ASKS, HEARS, ANSWERS, TOLD, POLL };

static pid_t first, second;
static volatile int ready;

static int same(pid_t a, pid_t b, int what) { return syscall(SYS_kcmp, a, b, what, 0, 0) == 0; }

static void moves(int from, int to) {
  if (dup2(from, to) != to || (from != to && close(from) != 0)) perror("move a descriptor"), exit(1);
}

static int in(const char *directory) {
  char cwd[64];
  return getcwd(cwd, sizeof cwd) && !strcmp(cwd, directory);
}

static void lock(int start) {
  struct flock l = {.l_type = F_WRLCK, .l_whence = SEEK_SET, .l_start = start, .l_len = 1};
  if (fcntl(NOTES, F_SETLK, &l) != 0) perror("lock"), exit(1);
}

static int locked(int start) {
  struct flock l = {.l_type = F_WRLCK, .l_whence = SEEK_SET, .l_start = start, .l_len = 1};
  return fcntl(NOTES, F_GETLK, &l) == 0 && l.l_type != F_UNLCK;
}

/* echo answers what comes by the threads' own pair. */
static void *echo(void *unused) {
  uint64_t n;
  second = syscall(SYS_gettid);
  ready = 1;
  while (read(OTHER, &n, sizeof n) == sizeof n) {
    n += in("/proc");
    if (write(OTHER, &n, sizeof n) != sizeof n) break;
  }
  return unused;
}

/* asks has the other thread, and the process, answer for themselves. */
static void asks(uint64_t count) {
  struct epoll_event e = {0};
  uint64_t n = count << 1, reply = 0;
  CHECK(epoll_wait(POLL, &e, 1, 0) == 0);
  CHECK(write(PLACE, &n, sizeof n) == sizeof n);
  CHECK(epoll_wait(POLL, &e, 1, 5000) == 1 && e.data.u64 == 77);
  CHECK(read(PLACE, &reply, sizeof reply) == sizeof reply && reply == n + 1);
  CHECK(write(ASKS, &count, sizeof count) == sizeof count);
  CHECK(read(TOLD, wrong, sizeof wrong) == sizeof wrong);
  CHECK(lseek(NOTES, 0, SEEK_CUR) == (off_t)(count % 1000));
}

static void *speaks(void *unused) {
  int pair[2];
  pthread_t other;
  if (unshare(CLONE_FILES | CLONE_FS) != 0 || chdir("/proc") != 0) perror("unshare"), exit(1);
  first = syscall(SYS_gettid);
  close(PLACE), close(HEARS), close(ANSWERS);
  if (socketpair(AF_UNIX, SOCK_STREAM, 0, pair) != 0) perror("socketpair"), exit(1);
  moves(pair[0], PLACE), moves(pair[1], OTHER);
  moves(epoll_create1(EPOLL_CLOEXEC), POLL);
  struct epoll_event e = {.events = EPOLLIN, .data.u64 = 77};
  if (epoll_ctl(POLL, EPOLL_CTL_ADD, PLACE, &e) != 0) perror("epoll"), exit(1);
  lock(1);
  if (pthread_create(&other, NULL, echo, NULL) != 0) perror("thread"), exit(1);
  while (!ready) usleep(1000);
  ready = 2;
  for (uint64_t count = 1;; count++) {
    asked();
    CHECK(same(first, second, KCMP_FILES) && same(first, second, KCMP_FS));
    CHECK(!same(first, getpid(), KCMP_FILES) && !same(first, getpid(), KCMP_FS));
    CHECK(in("/proc") && locked(0) && !locked(1) && fcntl(HEARS, F_GETFD) == -1 && fcntl(ANSWERS, F_GETFD) == -1);
    if (!wrong[0]) asks(count);
    verdict();
  }
  return unused;
}

int main(void) {
  int fds[2];
  pthread_t thread;
  control_open();
  moves(memfd_create("place", 0), PLACE);
  moves(memfd_create("notes", 0), NOTES);
  if (pipe(fds) != 0) perror("pipe"), exit(1);
  moves(fds[0], HEARS), moves(fds[1], ASKS);
  if (pipe(fds) != 0) perror("pipe"), exit(1);
  moves(fds[0], TOLD), moves(fds[1], ANSWERS);
  if (write(PLACE, "place", 5) != 5 || ftruncate(NOTES, 1000) != 0) perror("write"), exit(1);
  lock(0);
  if (pthread_create(&thread, NULL, speaks, NULL) != 0) perror("thread"), exit(1);
  while (ready != 2) usleep(1000);
  close(control), close(ASKS), close(TOLD);
  for (uint64_t n; read(HEARS, &n, sizeof n) == sizeof n;) {
    char place[5], told[sizeof wrong];
    CHECK(in("/") && locked(1) && !locked(0));
    CHECK(pread(PLACE, place, 5, 0) == 5 && !memcmp(place, "place", 5));
    CHECK(fcntl(control, F_GETFD) == -1 && fcntl(ASKS, F_GETFD) == -1 && fcntl(OTHER, F_GETFD) == -1 && fcntl(POLL, F_GETFD) == -1);
    CHECK(lseek(NOTES, n % 1000, SEEK_SET) == (off_t)(n % 1000));
    memcpy(told, wrong, sizeof told);
    if (write(ANSWERS, told, sizeof told) != sizeof told) return 1;
  }
  return 1;
}
