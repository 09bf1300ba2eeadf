// SPDX-License-Identifier: Apache-2.0
//
// usage: marks mount|files|dropped|narrowed DIRECTORY
//
// A fanotify group: of the mount of the directory, of the directory by an id,
// the same made without CAP_SYS_ADMIN, and one whose copy is without it.
#define _GNU_SOURCE
#include <fcntl.h>
#include <linux/capability.h>
#include <poll.h>
#include <sys/fanotify.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include "kerneltest.h"

static const char *kind, *dir;
static int group;

static void capabilities(int without) {
  struct __user_cap_header_struct header = {_LINUX_CAPABILITY_VERSION_3, 0};
  struct __user_cap_data_struct data[2];
  MUST(syscall(SYS_capget, &header, data) == 0);
  data[without / 32].effective &= ~(1u << without % 32);
  data[without / 32].permitted &= ~(1u << without % 32);
  MUST(syscall(SYS_capset, &header, data) == 0);
}

static void verify(void) {
  static int round;
  char path[512], buf[1024];
  snprintf(path, sizeof path, "%s/made%d.%d", dir, getpid(), round++);
  pid_t child = fork();
  if (child == 0)
    _exit(kind[0] == 'm' ? open(path, O_CREAT | O_RDWR, 0600) < 0 : mkdir(path, 0700));
  int status = -1;
  CHECK(waitpid(child, &status, 0) == child && status == 0);
  struct pollfd p = {.fd = group, .events = POLLIN};
  CHECK(poll(&p, 1, 5000) == 1);
  struct fanotify_event_metadata *e = (void *)buf;
  ssize_t n = read(group, buf, sizeof buf);
  CHECK(n == e->event_len, "%zd", n);
  CHECK(e->mask == (kind[0] == 'm' ? FAN_OPEN : FAN_CREATE | FAN_ONDIR), "%llx", (unsigned long long)e->mask);
  int told = kind[0] != 'd' && (kind[0] != 'n' || round == 1);
  CHECK(e->pid == (told ? child : 0), "process %d, made by %d", e->pid, child);
  if (kind[0] == 'm')
    CHECK(e->fd >= 0 && close(e->fd) == 0);
}

int main(int argc, char **argv) {
  MUST(argc == 3);
  kind = argv[1], dir = argv[2];
  if (kind[0] == 'm') {
    MUST((group = fanotify_init(FAN_CLASS_NOTIF, O_RDONLY)) >= 0);
    MUST(fanotify_mark(group, FAN_MARK_ADD | FAN_MARK_MOUNT, FAN_OPEN, AT_FDCWD, dir) == 0);
  } else {
    if (kind[0] == 'd')
      capabilities(CAP_SYS_ADMIN);
    MUST((group = fanotify_init(FAN_REPORT_FID, O_RDONLY)) >= 0);
    MUST(fanotify_mark(group, FAN_MARK_ADD, FAN_CREATE | FAN_ONDIR, AT_FDCWD, dir) == 0);
  }
  serve(verify);
}
