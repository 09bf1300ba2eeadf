// SPDX-License-Identifier: Apache-2.0
//
// Threads with a working directory, a root and a umask of their own, beside
// those that share the process's. With "table" one has its own descriptors.
#define _GNU_SOURCE
#include <pthread.h>
#include <sched.h>
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

static void *table(void *arg) {
  MUST(unshare(CLONE_FILES) == 0);
  __sync_fetch_and_add(&done, 1);
  for (;;) pause();
  return NULL;
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
    MUST(pthread_create(&id, NULL, table, NULL) == 0);
    n++;
  }
  while (done < n) usleep(1000);
  n = 4;
  ready();
  while (asked()) {
    fails[0] = 0;
    done = 0;
    turn++;
    while (done < n) usleep(1000);
    check(&own);
    answer();
  }
  return 0;
}
