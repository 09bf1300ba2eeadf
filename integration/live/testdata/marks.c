/* SPDX-License-Identifier: Apache-2.0 */

/*
 * marks: groups of fanotify(7) whose marks are on files and directories of the root
 * and of a memory file system, and on all of that. "build" makes them, "verify" has
 * things happen to them and looks at what is told, "change" does something and leaves
 * what is told unread, and "overflow" reads that after a move.
 */
#include "control.h"

#include <fcntl.h>
#include <sys/fanotify.h>
#include <sys/stat.h>

#define ROOT "/data"
#define SHM "/dev/shm/data"

static int names, whole;
static char before[2][2048];

static int by_text(const void *a, const void *b) { return strcmp(a, b); }

/* shown is what fdinfo says of a group's marks, but for numbers of files and devices,
 * which are others in a copy. */
static void shown(int fd, char *all, size_t size) {
  static char line[8][512];
  char name[64];
  int n = 0;
  snprintf(name, sizeof name, "/proc/self/fdinfo/%d", fd);
  FILE *f = fopen(name, "r");
  CHECK(f);
  while (f && n < 8 && fgets(line[n], sizeof line[n], f)) {
    char *flags = strstr(line[n], "mflags:"), *handle = strstr(line[n], " fhandle-bytes");
    if (strncmp(line[n], "fanotify ", 9)) continue;
    if (handle) strcpy(handle, "\n");
    if (flags) memmove(line[n] + 12, flags, strlen(flags) + 1); /* its kind is ino, mnt or sdev */
    n++;
  }
  if (f) fclose(f);
  qsort(line, n, sizeof line[0], by_text);
  all[0] = 0;
  for (int i = 0; i < n; i++) strncat(all, line[i], size - strlen(all) - 1);
}

struct event {
  struct fanotify_event_metadata meta;
  char rest[512];
};

static int told(int fd, struct event *e) {
  memset(e, 0, sizeof *e);
  struct pollfd p = {.fd = fd, .events = POLLIN};
  return poll(&p, 1, 5000) == 1 && read(fd, e, sizeof *e) >= (ssize_t)sizeof e->meta;
}

/* tells: the next event is this one, of a name in a directory, which is known by its
 * handle of now. */
static void tells(int fd, __u64 mask, const char *dir, const char *name) {
  struct event e;
  CHECK(told(fd, &e));
  if (e.meta.mask != mask && !wrong[0]) snprintf(wrong, sizeof wrong, "event %#llx of %s/%s, want %#llx", (long long)e.meta.mask, dir, name, (long long)mask);
  const struct fanotify_event_info_fid *info = (const void *)e.rest;
  const struct file_handle *h = (const void *)info->handle;
  struct {
    struct file_handle h;
    char room[MAX_HANDLE_SZ];
  } want = {.h.handle_bytes = MAX_HANDLE_SZ};
  int mount;
  CHECK(!name_to_handle_at(AT_FDCWD, dir, &want.h, &mount, 0x200 /* AT_HANDLE_FID, linux/fcntl.h */));
  CHECK(h->handle_bytes == want.h.handle_bytes && !memcmp(h->f_handle, want.h.f_handle, want.h.handle_bytes));
  CHECK(!strcmp((const char *)h->f_handle + h->handle_bytes, name));
}

static void nothing(int fd) {
  struct pollfd p = {.fd = fd, .events = POLLIN};
  CHECK(poll(&p, 1, 0) == 0);
}

static void touch(const char *path) {
  int fd = open(path, O_RDWR | O_CREAT, 0600);
  CHECK(fd >= 0 && !close(fd));
}

static void build(void) {
  CHECK(!mkdir(ROOT, 0700) && !mkdir(SHM, 0700));
  touch(ROOT "/file");
  names = fanotify_init(FAN_REPORT_DFID_NAME | FAN_NONBLOCK | FAN_CLOEXEC, O_RDONLY);
  whole = fanotify_init(FAN_REPORT_DFID_NAME | FAN_UNLIMITED_MARKS | FAN_NONBLOCK, O_RDONLY);
  CHECK(names >= 0 && whole >= 0);
  CHECK(!fanotify_mark(names, FAN_MARK_ADD, FAN_CREATE | FAN_DELETE, AT_FDCWD, ROOT));
  CHECK(!fanotify_mark(names, FAN_MARK_ADD, FAN_CREATE, AT_FDCWD, SHM));
  CHECK(!fanotify_mark(names, FAN_MARK_ADD, FAN_ATTRIB, AT_FDCWD, ROOT "/file"));
  CHECK(!fanotify_mark(whole, FAN_MARK_ADD | FAN_MARK_FILESYSTEM, FAN_CREATE | FAN_DELETE, AT_FDCWD, "/dev/shm"));
  shown(names, before[0], sizeof before[0]);
  shown(whole, before[1], sizeof before[1]);
  CHECK(strlen(before[0]) > 50 && strlen(before[1]) > 50);
}

static void verify(void) {
  char now[2048];
  int fds[] = {names, whole};
  for (int i = 0; i < 2; i++) {
    shown(fds[i], now, sizeof now);
    if (strcmp(now, before[i]) && !wrong[0]) snprintf(wrong, sizeof wrong, "its marks are\n%.200s\nand were\n%.200s", now, before[i]);
    nothing(fds[i]);
  }
  touch(ROOT "/new");
  tells(names, FAN_CREATE, ROOT, "new");
  CHECK(!unlink(ROOT "/new"));
  tells(names, FAN_DELETE, ROOT, "new");
  CHECK(!chmod(ROOT "/file", 0640));
  tells(names, FAN_ATTRIB, ROOT, "file");
  nothing(whole);
  touch(SHM "/new");
  tells(names, FAN_CREATE, SHM, "new");
  tells(whole, FAN_CREATE, SHM, "new");
  CHECK(!unlink(SHM "/new"));
  tells(whole, FAN_DELETE, SHM, "new");
  touch("/dev/shm/other");
  tells(whole, FAN_CREATE, "/dev/shm", "other");
  CHECK(!unlink("/dev/shm/other"));
  tells(whole, FAN_DELETE, "/dev/shm", "other");
  nothing(names);
  nothing(whole);
}

int main(void) {
  control_open();
  for (;;) {
    const char *q = asked();
    struct event e;
    if (!strcmp(q, "build")) build();
    if (!strcmp(q, "verify")) verify();
    if (!strcmp(q, "change")) touch(ROOT "/changed");
    if (!strcmp(q, "overflow")) {
      CHECK(told(names, &e) && e.meta.mask == FAN_Q_OVERFLOW);
      CHECK(!unlink(ROOT "/changed"));
      tells(names, FAN_DELETE, ROOT, "changed");
    }
    verdict();
  }
}
