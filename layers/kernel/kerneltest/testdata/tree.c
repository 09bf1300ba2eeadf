// SPDX-License-Identifier: Apache-2.0
//
// A tree of processes, each of which checks its own ids. The first argument
// says which tree. Every process has a pipe of its own for commands, whose
// writing end is the first process's, and all of them answer by one pipe.
#define _GNU_SOURCE
#include <sched.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>

#include "kerneltest.h"

enum { MOST = 64 };
static int command[MOST][2], answers[2];
static int count; // processes beside the first

struct ids { int pid, ppid, pgid, sid; };

static struct ids look(void) { return (struct ids){getpid(), getppid(), getpgrp(), getsid(0)}; }

// member is what every process but the first does for ever.
static void member(int n) {
  struct ids was = look();
  char c;
  while (read(command[n][0], &c, 1) == 1) {
    struct ids is = look();
    char text[128] = "";
    if (c == 'x') _exit(n);
    if (c == 'i') was = is; // orphans have a new parent by now
    if (memcmp(&is, &was, sizeof is))
      snprintf(text, sizeof text, "process %d was %d %d %d %d and is %d %d %d %d", n, was.pid, was.ppid, was.pgid, was.sid, is.pid, is.ppid, is.pgid, is.sid);
    if (write(answers[1], text, sizeof text) != sizeof text) _exit(101);
  }
  _exit(102);
}

static void ask(char c) {
  for (int n = 1; n <= count; n++) {
    char text[128];
    CHECK(write(command[n][1], &c, 1) == 1);
    CHECK(read(answers[0], text, sizeof text) == sizeof text);
    if (text[0]) fail("%s", text);
  }
}

// add forks a process that runs fn and is a member then. Numbers are given by
// the caller, since no memory is shared.
static pid_t add(int n, void (*fn)(void)) {
  pid_t pid = fork();
  MUST(pid >= 0);
  if (pid) return pid;
  if (fn) fn();
  member(n);
  return 0;
}

static void lead(void) { MUST(setsid() > 0); }
static void group(void) { MUST(setpgid(0, 0) == 0); }

// gone forks a process that runs fn and ends; it is waited for.
static void gone(void (*fn)(void)) {
  pid_t pid = fork();
  MUST(pid >= 0);
  if (pid == 0) {
    fn();
    _exit(0);
  }
  MUST(waitpid(pid, NULL, 0) == pid);
}

// wide: 7 children with 6 children each.
static void six(void);
static int base;
static void wide(void) {
  for (int i = 0; i < 7; i++) {
    base = 1 + 7 * i;
    add(base, six);
  }
  count = 49;
}
static void six(void) {
  for (int i = 1; i < 7; i++) add(base + i, i == 3 ? group : i == 4 ? lead : NULL);
}

// deep: each the child of the one before.
static int depth;
static void down(void) {
  if (++depth < 50) add(depth + 1, down);
}
static void deep(void) {
  add(1, down);
  count = 50;
}

// sessions: a leader with a child from before, from after, and one that leads
// a session below it with a child from before.
static void late(void) {
  add(2, NULL);
  lead();
  add(3, NULL);
  add(4, group);
}
static void early(void) {
  add(6, NULL);
  lead();
}
static void sessions(void) {
  add(1, late);
  add(5, early);
  count = 6;
}

// daemons: forked twice, so that the leader of their session is gone.
static void daemonic(void) {
  lead();
  add(1, NULL);
  add(2, group);
}
static void pipeline(void) { // whose first process has ended
  pid_t leader = getpid();
  setpgid(0, 0);
  for (int n = 4; n <= 5; n++)
    if (fork() == 0) {
      setpgid(0, leader);
      member(n);
    }
}
static void jobs(void) {
  lead();
  gone(pipeline);
}
static void orphan(void) { add(7, NULL); }
static void orphans(void) { // in a session whose leader is a child of the first
  lead();
  gone(orphan);
}
static void farther(void) { add(10, NULL); }
static void third(void) { // in a session whose leader is farther below
  lead();
  gone(farther);
}
static void second(void) { add(9, third); }
static void daemons(void) {
  gone(daemonic);
  add(3, jobs);
  add(6, orphans);
  add(8, second);
  count = 10;
}

// reapers: a process that adopts orphans.
static void left(void) {
  lead();
  add(2, NULL);
}
static void stray(void) { add(4, NULL); }
static void leader(void) {
  lead();
  gone(stray);
}
static void reaper(void) {
  MUST(prctl(PR_SET_CHILD_SUBREAPER, 1) == 0);
  gone(left);
  add(3, leader);
}
static void reapers(void) {
  add(1, reaper);
  count = 4;
}

static void verify(void) { ask('v'); }

int main(int argc, char **argv) {
  static const struct { const char *name; void (*fn)(void); } trees[] = {
    {"wide", wide}, {"deep", deep}, {"sessions", sessions}, {"daemons", daemons}, {"reapers", reapers},
  };
  for (int n = 0; n < MOST; n++) MUST(pipe(command[n]) == 0);
  MUST(pipe(answers) == 0);
  for (unsigned i = 0; i < sizeof trees / sizeof trees[0]; i++)
    if (argc > 1 && strcmp(argv[1], trees[i].name) == 0) trees[i].fn();
  MUST(count > 0);
  usleep(100000); // until those that are to end have ended
  ask('i');
  ask('i');
  serve(verify);
}
