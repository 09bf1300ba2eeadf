// SPDX-License-Identifier: Apache-2.0
//
// Threads with a working directory, a root and a umask of their own, beside
// those that share the process's. With "table" one has its own descriptors, and makes
// another one that has them, too.
#define _GNU_SOURCE
#include <fcntl.h>
#include <pthread.h>
#include <sched.h>
#include <sys/epoll.h>
#include <sys/stat.h>

#include "kerneltest.h"

static const char *dir;
static volatile int turn, done;

struct job {
  int number, own, root;
  mode_t mask;
};

// check looks at what the thread has: the file "here" is in the directory.
static void check(struct job *j) {
  char path[4096];
  CHECK(getcwd(path, sizeof path) != NULL);
  CHECK(!strcmp(path, j->root ? "/" : j->own ? dir : "/"), "thread %d is in %s", j->number, path);
  CHECK((access("here", F_OK) == 0) == j->own, "thread %d", j->number);
  CHECK((access("/here", F_OK) == 0) == j->root, "thread %d", j->number);
  mode_t mask = umask(0);
  umask(mask);
  CHECK(mask == j->mask, "thread %d has umask %o", j->number, mask);
}

static void *run(void *arg) {
  struct job *j = arg;
  if (j->own) {
    MUST(unshare(CLONE_FS) == 0 && chdir(dir) == 0);
    if (j->root) MUST(chroot(dir) == 0);
    umask(j->mask);
  }
  for (int mine = 1;; mine++) {
    __sync_fetch_and_add(&done, 1);
    while (turn < mine) usleep(1000);
    check(j);
  }
  return NULL;
}

// table is what the two with a table of their own do: the file is open at 40 here and
// at 41 there, and 42 is a pipe's end, of which the process has the other one.
static int offset;

static void look(int here) {
  CHECK(lseek(here ? 40 : 41, 0, SEEK_CUR) == offset, "offset %d", (int)lseek(here ? 40 : 41, 0, SEEK_CUR));
  CHECK(fcntl(here ? 41 : 40, F_GETFD) == -1);
  CHECK(fcntl(44, F_GETFD) == (here ? 0 : -1)); // the thread alone can say so
  CHECK(fcntl(here ? 40 : 41, F_GETFD) == (here ? FD_CLOEXEC : 0));
}

static void *second(void *arg) {
  for (int mine = 1;; mine++) {
    char c = 0;
    __sync_fetch_and_add(&done, 1);
    while (turn < mine) usleep(1000);
    look(1);
    CHECK(read(42, &c, 1) == 1 && c == 'c');
    CHECK(fcntl(43, F_GETFD) == -1);
  }
  return arg;
}

static void *table(void *arg) {
  pthread_t id;
  MUST(unshare(CLONE_FILES) == 0);
  MUST(dup3(41, 40, O_CLOEXEC) == 40 && close(41) == 0 && close(43) == 0);
  MUST(dup2(epoll_create1(EPOLL_CLOEXEC), 44) == 44);
  MUST(pthread_create(&id, NULL, second, NULL) == 0);
  for (int mine = 1;; mine++) {
    __sync_fetch_and_add(&done, 1);
    while (turn < mine) usleep(1000);
    look(1);
  }
  return arg;
}

static void open_all(void) {
  int ends[2];
  MUST(dup2(open(dir, O_RDONLY | O_DIRECTORY), 39) == 39);
  int fd = openat(39, "shared", O_RDWR | O_CREAT | O_TRUNC, 0600);
  MUST(ftruncate(fd, 100) == 0 && dup2(fd, 41) == 41 && pipe(ends) == 0);
  close(fd);
  MUST(dup2(ends[0], 42) == 42 && dup2(ends[1], 43) == 43);
  close(ends[0]);
  close(ends[1]);
}

int main(int argc, char **argv) {
  static struct job jobs[] = {{1, 1, 0, 077}, {2, 0, 0, 027}, {3, 1, 1, 0}, {4, 1, 0, 0123}};
  static struct job own = {0, 0, 0, 027};
  pthread_t id;
  dir = argv[1];
  MUST(chdir("/") == 0);
  umask(027);
  int n = 4;
  for (int i = 0; i < n; i++) MUST(pthread_create(&id, NULL, run, &jobs[i]) == 0);
  if (argc > 2) {
    open_all();
    MUST(pthread_create(&id, NULL, table, NULL) == 0);
    n += 2;
  }
  while (done < n) usleep(1000);
  if (argc > 2) close(42);
  ready();
  while (asked()) {
    fails[0] = 0;
    done = 0;
    if (argc > 2) {
      look(0);
      CHECK(fcntl(42, F_GETFD) == -1 && write(43, "c", 1) == 1);
      offset = turn + 1;
      CHECK(lseek(41, offset, SEEK_SET) == offset);
    }
    turn++;
    while (done < n) usleep(1000);
    check(&own);
    answer();
  }
  return 0;
}
