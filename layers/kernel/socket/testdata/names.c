// SPDX-License-Identifier: Apache-2.0
//
// Unix connections that were accepted: they have the name of their listener. usage:
// names DIRECTORY
#define _GNU_SOURCE
#include <stddef.h>
#include <sys/socket.h>
#include <sys/un.h>
#include "kerneltest.h"

struct connection { int l, c[3], s[3]; struct sockaddr_un at; socklen_t n; };
static struct connection file, gone, abstract;

static void make(struct connection *k, int type, const char *name, int abstract_) {
  memset(&k->at, 0, sizeof k->at);
  k->at.sun_family = AF_UNIX;
  strcpy(k->at.sun_path + abstract_, name);
  k->n = offsetof(struct sockaddr_un, sun_path) + strlen(name) + 1;
  MUST((k->l = socket(AF_UNIX, type, 0)) >= 0 && bind(k->l, (void *)&k->at, k->n) == 0 && listen(k->l, 5) == 0);
  for (int i = 0; i < 3; i++) {
    MUST((k->c[i] = socket(AF_UNIX, type, 0)) >= 0 && connect(k->c[i], (void *)&k->at, k->n) == 0);
    MUST((k->s[i] = accept(k->l, 0, 0)) >= 0);
  }
}

static void look(struct connection *k) {
  char b[8];
  for (int i = 0; i < 3; i++) {
    struct sockaddr_un a;
    memset(&a, 0, sizeof a);
    socklen_t n = sizeof a;
    CHECK(getsockname(k->s[i], (void *)&a, &n) == 0 && n == k->n && !memcmp(&a, &k->at, n), "name of %s%s: %d bytes", k->at.sun_path, k->at.sun_path + 1, n);
    n = sizeof a;
    CHECK(getpeername(k->c[i], (void *)&a, &n) == 0 && n == k->n && !memcmp(&a, &k->at, n));
    n = sizeof a;
    CHECK(getsockname(k->c[i], (void *)&a, &n) == 0 && n == sizeof a.sun_family);
    CHECK(recv(k->s[i], b, sizeof b, MSG_DONTWAIT) == 2 && b[0] == 'q' && b[1] == '0' + i);
    CHECK(send(k->s[i], "back", 4, 0) == 4 && recv(k->c[i], b, sizeof b, 0) == 4);
    CHECK(send(k->c[i], (char[]){'q', '0' + i}, 2, 0) == 2);
    struct ucred u;
    n = sizeof u;
    CHECK(getsockopt(k->c[i], SOL_SOCKET, SO_PEERCRED, &u, &n) == 0 && u.uid == geteuid() && u.pid == getpid());
  }
  if (k->l < 0) return;
  int c = socket(AF_UNIX, k == &abstract ? SOCK_SEQPACKET : SOCK_STREAM, 0), s;
  CHECK(connect(c, (void *)&k->at, k->n) == 0 && (s = accept(k->l, 0, 0)) >= 0);
  close(c), close(s);
}

static void verify(void) { look(&file), look(&gone), look(&abstract); }

int main(int argc, char **argv) {
  char path[100];
  snprintf(path, sizeof path, "%s/listener", argv[1]);
  make(&file, SOCK_STREAM, path, 0);
  snprintf(path, sizeof path, "%s/gone", argv[1]);
  make(&gone, SOCK_STREAM, path, 0);
  close(gone.l), unlink(path), gone.l = -1;
  snprintf(path, sizeof path, "mig-test-%s", argv[1]);
  make(&abstract, SOCK_SEQPACKET, path, 1);
  struct connection *all[] = {&file, &gone, &abstract};
  for (int k = 0; k < 3; k++)
    for (int i = 0; i < 3; i++) MUST(send(all[k]->c[i], (char[]){'q', '0' + i}, 2, 0) == 2);
  serve(verify);
}
