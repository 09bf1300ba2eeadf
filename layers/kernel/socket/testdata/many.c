// SPDX-License-Identifier: Apache-2.0
//
// Connections to somebody outside of the container, who listens on a port of the
// loopback and sends back what he gets. usage: many PORT COUNT
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <signal.h>
#include <sys/socket.h>
#include "kerneltest.h"

static int count, *client;

static void verify(void) {
  char b;
  for (int i = 0; i < count; i++)
    CHECK(send(client[i], "x", 1, 0) == 1);
  for (int i = 0; i < count; i++)
    CHECK(recv(client[i], &b, 1, 0) == 1 && b == 'x', "connection %d: %s", i, strerror(errno));
}

int main(int argc, char **argv) {
  MUST(argc == 3);
  count = atoi(argv[2]);
  MUST((client = calloc(count, sizeof *client)) != NULL);
  struct sockaddr_in a = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK), .sin_port = htons(atoi(argv[1]))};
  for (int i = 0; i < count; i++)
    MUST((client[i] = socket(AF_INET, SOCK_STREAM, 0)) >= 0 && connect(client[i], (void *)&a, sizeof a) == 0);
  serve(verify);
}
