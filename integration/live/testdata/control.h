/* SPDX-License-Identifier: Apache-2.0 */

/*
 * A program that is moved and answers for itself, over UDP: who asks gets "good",
 * or what is wrong. CHECK makes an answer of what does not hold.
 */
#ifndef CONTROL_H
#define CONTROL_H

#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <poll.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#define CONTROL_PORT 7000

static int control;
static struct sockaddr_in asker;
static char wrong[512];

static void control_open(void) {
  struct sockaddr_in a = {.sin_family = AF_INET, .sin_port = htons(CONTROL_PORT)};
  control = socket(AF_INET, SOCK_DGRAM, 0);
  if (control < 0 || bind(control, (void *)&a, sizeof a)) perror("control"), exit(1);
}

static void answer(const char *format, ...) {
  char text[600];
  va_list list;
  va_start(list, format);
  int n = vsnprintf(text, sizeof text, format, list);
  va_end(list);
  sendto(control, text, n < (int)sizeof text ? n : (int)sizeof text - 1, 0, (void *)&asker, sizeof asker);
}

/* asked returns a question, without an end. */
static const char *asked(void) {
  static char text[64];
  socklen_t n = sizeof asker;
  ssize_t k = recvfrom(control, text, sizeof text - 1, 0, (void *)&asker, &n);
  text[k > 0 ? k : 0] = 0;
  return text;
}

/* CHECK notes the first condition that does not hold. */
#define CHECK(condition)                                                                              \
  do {                                                                                                \
    if (!(condition) && !wrong[0]) snprintf(wrong, sizeof wrong, "line %d: %s (%s)", __LINE__, #condition, strerror(errno)); \
  } while (0)

/* verdict answers with what CHECK has noted since the last one. */
static void verdict(void) {
  answer("%s", wrong[0] ? wrong : "good");
  wrong[0] = 0;
}

#endif
