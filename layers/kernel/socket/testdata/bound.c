// SPDX-License-Identifier: Apache-2.0
//
// A unix socket that listens at DIR/server, or in a new directory SUB of it.
// usage: bound DIR [SUB]
#include <stdio.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>
#include "kerneltest.h"

static struct sockaddr_un a = {.sun_family = AF_UNIX};
static int f;

static void verify(void) {
  int c = socket(AF_UNIX, SOCK_STREAM, 0);
  CHECK(c >= 0 && connect(c, (void *)&a, sizeof a) == 0);
  int s = accept(f, 0, 0);
  CHECK(s >= 0);
  close(s);
  close(c);
}

int main(int argc, char **argv) {
  MUST(argc == 2 || argc == 3);
  snprintf(a.sun_path, sizeof a.sun_path, "%s/%s", argv[1], argc == 3 ? argv[2] : "");
  MUST(argc == 2 || mkdir(a.sun_path, 0755) == 0);
  snprintf(a.sun_path, sizeof a.sun_path, "%s/%s/server", argv[1], argc == 3 ? argv[2] : ".");
  MUST((f = socket(AF_UNIX, SOCK_STREAM, 0)) >= 0);
  MUST(bind(f, (void *)&a, sizeof a) == 0 && listen(f, 5) == 0);
  serve(verify);
}
