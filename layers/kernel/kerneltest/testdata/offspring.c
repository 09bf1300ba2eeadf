// SPDX-License-Identifier: Apache-2.0
//
// An init whose children are programs of their own, which write checksummed
// memory all the time; the first has such a child as well. argv[1] says what else
// happens: "steady" is nothing, "churn" ends children and starts others, "forks"
// has children fork without executing anything.
#define _GNU_SOURCE
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdint.h>
#include <sys/mman.h>
#include <sys/wait.h>

#include "kerneltest.h"

enum { PAGE = 4096, WORDS = PAGE / 8, PAGES = 1024, CHILDREN = 3 };

static uint64_t *memory, model[PAGES];
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static int forks;

static uint64_t rnd(void) {
  static uint64_t x;
  if (!x) x = 88172645463325252ull + getpid();
  return x ^= x << 13, x ^= x >> 7, x ^= x << 17;
}

static void put(size_t p) {
  model[p] = rnd() | 1;
  for (size_t i = 0; i < WORDS; i++) memory[p * WORDS + i] = model[p] * (i + 1);
}

static int wrong(void) {
  for (size_t p = 0; p < PAGES; p++)
    for (size_t i = 0; i < WORDS; i++)
      if (memory[p * WORDS + i] != model[p] * (i + 1)) return 1;
  return 0;
}

static void *writer(void *arg) {
  for (;;) {
    pthread_mutex_lock(&lock);
    for (int i = 0; i < 8; i++) put(rnd() % PAGES);
    if (forks && rnd() % 16 == 0) {
      int st = -1;
      pid_t pid = fork();
      if (pid == 0) {
        usleep(rnd() % 20000);
        _exit(wrong());
      }
      if (waitpid(pid, &st, 0) != pid || st) _exit(99);
    }
    pthread_mutex_unlock(&lock);
    usleep(200);
  }
  return arg;
}

struct child {
  pid_t pid;
  int to, from;
};

static void spawn(struct child *c, const char *role, const char *how) {
  int to[2], from[2];
  MUST(pipe2(to, O_CLOEXEC) == 0 && pipe2(from, O_CLOEXEC) == 0);
  c->pid = fork();
  MUST(c->pid >= 0);
  if (c->pid == 0) {
    char *args[] = {"offspring", (char *)how, (char *)role, NULL};
    dup2(to[0], 0), dup2(from[1], 1);
    execv("/proc/self/exe", args);
    _exit(98);
  }
  close(to[0]), close(from[1]);
  c->to = to[1], c->from = from[0];
  char said[16] = "";
  for (size_t n = 0; n < 6; n++) MUST(read(c->from, said + n, 1) == 1);
  MUST(!strcmp(said, "ready\n"));
}

static void dismiss(struct child *c) {
  int st;
  MUST(kill(c->pid, SIGKILL) == 0 && waitpid(c->pid, &st, 0) == c->pid);
  close(c->to), close(c->from);
}

static struct child children[CHILDREN];
static int count;
static const char *how;

static void *churn(void *arg) {
  for (;;) {
    usleep(15000);
    pthread_mutex_lock(&lock);
    int i = 1 + rnd() % (CHILDREN - 1);
    dismiss(&children[i]);
    spawn(&children[i], "leaf", how);
    pthread_mutex_unlock(&lock);
  }
  return arg;
}

static void verify(void) {
  pthread_mutex_lock(&lock);
  CHECK(!wrong(), "memory of %d", getpid());
  for (int i = 0; i < count; i++) {
    char c = 'v', text[600];
    CHECK(write(children[i].to, &c, 1) == 1, "child %d", i);
    ssize_t n = read(children[i].from, text, sizeof text - 1);
    text[n > 0 ? n : 0] = 0;
    if (strcmp(text, "OK\n")) fail("child %d (%d): %s", i, children[i].pid, text);
  }
  pthread_mutex_unlock(&lock);
}

int main(int argc, char **argv) {
  MUST(argc > 1);
  how = argv[1];
  forks = !strcmp(how, "forks");
  memory = mmap(NULL, PAGES * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  MUST(memory != MAP_FAILED);
  for (size_t p = 0; p < PAGES; p++) put(p);
  const char *role = argc > 2 ? argv[2] : "init";
  pthread_t t;
  MUST(pthread_create(&t, NULL, writer, NULL) == 0);
  if (!strcmp(role, "init")) {
    for (; count < CHILDREN; count++) spawn(&children[count], count ? "leaf" : "branch", how);
    if (!strcmp(how, "churn")) MUST(pthread_create(&t, NULL, churn, NULL) == 0);
  } else if (!strcmp(role, "branch")) {
    spawn(&children[count++], "leaf", how);
  }
  serve(verify);
}
