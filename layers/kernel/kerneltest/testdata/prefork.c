// SPDX-License-Identifier: Apache-2.0
//
// A server that forks before it accepts: several processes wait on one listener.
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <sys/socket.h>
#include <sys/wait.h>

#include "kerneltest.h"

enum { WORKERS = 4 };
static pid_t workers[WORKERS];
static struct sockaddr_in at = {.sin_family = AF_INET};

static void work(int listener) {
  for (;;) {
    int fd = accept(listener, NULL, NULL);
    int pid = getpid();
    if (fd < 0 || write(fd, &pid, sizeof pid) != sizeof pid) _exit(1);
    usleep(1000); // so that others get some, too
    close(fd);
  }
}

static void verify(void) {
  int served[WORKERS] = {0}, fds[4 * WORKERS];
  for (int i = 0; i < 4 * WORKERS; i++) {
    fds[i] = socket(AF_INET, SOCK_STREAM, 0);
    CHECK(connect(fds[i], (struct sockaddr *)&at, sizeof at) == 0);
  }
  for (int i = 0; i < 4 * WORKERS; i++) {
    int pid = 0, found = 0;
    CHECK(read(fds[i], &pid, sizeof pid) == sizeof pid);
    for (int w = 0; w < WORKERS; w++)
      if (workers[w] == pid) found = ++served[w];
    CHECK(found, "process %d answers", pid);
    CHECK(read(fds[i], &pid, 1) == 0);
    close(fds[i]);
  }
  int busy = 0;
  for (int w = 0; w < WORKERS; w++) {
    busy += served[w] > 0;
    CHECK(waitpid(workers[w], NULL, WNOHANG) == 0);
  }
  CHECK(busy > 1, "%d of the workers work", busy);
}

int main(void) {
  int listener = socket(AF_INET, SOCK_STREAM, 0), one = 1;
  socklen_t len = sizeof at;
  at.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  MUST(setsockopt(listener, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one) == 0);
  MUST(bind(listener, (struct sockaddr *)&at, sizeof at) == 0 && listen(listener, 64) == 0);
  MUST(getsockname(listener, (struct sockaddr *)&at, &len) == 0);
  for (int w = 0; w < WORKERS; w++) {
    workers[w] = fork();
    MUST(workers[w] >= 0);
    if (workers[w] == 0) work(listener);
  }
  serve(verify);
}
