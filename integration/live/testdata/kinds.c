/* SPDX-License-Identifier: Apache-2.0 */

/*
 * Sockets of every kind but TCP's: UDP, ICMP, multicast groups, raw and packet
 * sockets. Asked to "build", it opens them; what arrives at one is sent to who asks,
 * with its name; asked to "verify", it looks at addresses, options and filters, and
 * pings. usage: kinds CLIENT4 CLIENT6
 */
#include "control.h"

#include <linux/filter.h>
#include <linux/if_packet.h>
#include <net/if.h>
#include <netinet/icmp6.h>
#include <netinet/ip_icmp.h>

#ifndef ICMP_FILTER
#define ICMP_FILTER 1
#endif
#define ETHERTYPE 0x88b5 /* for experiments (IEEE 802) */
#define PROTOCOL 253     /* for experiments (RFC 3692) */

enum { DATAGRAM6, CONNECTED, GROUP4, SOURCE4, GROUP6, RAW, PACKET, KINDS };
static const char *names[KINDS] = {"datagram6", "connected", "group4", "source4", "group6", "raw", "packet"};
static int fds[KINDS], ping4, ping6, icmp;
static struct sockaddr_in client4;
static struct sockaddr_in6 client6;
static struct sockaddr_storage was[KINDS + 2];

static int bound(int family, int port) {
  struct sockaddr_in a4 = {.sin_family = AF_INET, .sin_port = htons(port)};
  struct sockaddr_in6 a6 = {.sin6_family = AF_INET6, .sin6_port = htons(port)};
  int fd = socket(family, SOCK_DGRAM, 0), on = 1;
  CHECK(fd >= 0);
  if (family == AF_INET6) CHECK(setsockopt(fd, IPPROTO_IPV6, IPV6_V6ONLY, &on, sizeof on) == 0);
  CHECK(bind(fd, family == AF_INET ? (void *)&a4 : (void *)&a6, family == AF_INET ? sizeof a4 : sizeof a6) == 0);
  return fd;
}

static void join(int fd, const char *group, const struct sockaddr_in *source) {
  struct group_source_req r = {.gsr_interface = if_nametoindex("eth0")};
  int six = strchr(group, ':') != 0;
  r.gsr_group.ss_family = six ? AF_INET6 : AF_INET;
  inet_pton(r.gsr_group.ss_family, group, six ? (void *)&((struct sockaddr_in6 *)&r.gsr_group)->sin6_addr : (void *)&((struct sockaddr_in *)&r.gsr_group)->sin_addr);
  if (source) memcpy(&r.gsr_source, source, sizeof *source);
  CHECK(setsockopt(fd, six ? IPPROTO_IPV6 : IPPROTO_IP, source ? MCAST_JOIN_SOURCE_GROUP : MCAST_JOIN_GROUP, &r, source ? sizeof r : sizeof(struct group_req)) == 0);
}

static int address(int i) { return i < KINDS ? fds[i] : i == KINDS ? ping4 : ping6; }

static void build(void) {
  fds[DATAGRAM6] = bound(AF_INET6, 7001);
  fds[CONNECTED] = bound(AF_INET, 7002);
  struct sockaddr_in to = client4;
  to.sin_port = htons(7100);
  CHECK(connect(fds[CONNECTED], (void *)&to, sizeof to) == 0);
  fds[GROUP4] = bound(AF_INET, 7003), join(fds[GROUP4], "239.1.2.3", 0);
  fds[SOURCE4] = bound(AF_INET, 7004), join(fds[SOURCE4], "232.1.2.3", &client4);
  fds[GROUP6] = bound(AF_INET6, 7005), join(fds[GROUP6], "ff05::77", 0);
  CHECK((fds[RAW] = socket(AF_INET, SOCK_RAW, PROTOCOL)) >= 0 && connect(fds[RAW], (void *)&client4, sizeof client4) == 0);

  /* What begins with another letter than 'y' does not pass. */
  struct sock_filter code[] = {
      BPF_STMT(BPF_LD | BPF_B | BPF_ABS, 0), BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, 'y', 0, 1),
      BPF_STMT(BPF_RET | BPF_K, 0xffff), BPF_STMT(BPF_RET | BPF_K, 0)};
  struct sock_fprog filter = {sizeof code / sizeof *code, code};
  struct sockaddr_ll link = {.sll_family = AF_PACKET, .sll_protocol = htons(ETHERTYPE), .sll_ifindex = if_nametoindex("eth0")};
  struct packet_mreq all = {.mr_ifindex = link.sll_ifindex, .mr_type = PACKET_MR_ALLMULTI};
  int on = 1;
  CHECK((fds[PACKET] = socket(AF_PACKET, SOCK_DGRAM, 0)) >= 0);
  CHECK(setsockopt(fds[PACKET], SOL_SOCKET, SO_ATTACH_FILTER, &filter, sizeof filter) == 0);
  CHECK(setsockopt(fds[PACKET], SOL_PACKET, PACKET_AUXDATA, &on, sizeof on) == 0);
  CHECK(bind(fds[PACKET], (void *)&link, sizeof link) == 0);
  CHECK(setsockopt(fds[PACKET], SOL_PACKET, PACKET_ADD_MEMBERSHIP, &all, sizeof all) == 0);

  CHECK((ping4 = socket(AF_INET, SOCK_DGRAM, IPPROTO_ICMP)) >= 0 && connect(ping4, (void *)&client4, sizeof client4) == 0);
  CHECK((ping6 = socket(AF_INET6, SOCK_DGRAM, IPPROTO_ICMPV6)) >= 0 && connect(ping6, (void *)&client6, sizeof client6) == 0);
  unsigned only_replies = ~(1U << ICMP_ECHOREPLY);
  CHECK((icmp = socket(AF_INET, SOCK_RAW, IPPROTO_ICMP)) >= 0 && setsockopt(icmp, SOL_RAW, ICMP_FILTER, &only_replies, sizeof only_replies) == 0);
  for (int i = 0; i < KINDS + 2; i++) {
    socklen_t n = sizeof was[i];
    CHECK(getsockname(address(i), (void *)&was[i], &n) == 0);
  }
}

static ssize_t receive(int fd, void *b, size_t size) {
  struct pollfd p = {.fd = fd, .events = POLLIN};
  return poll(&p, 1, 5000) == 1 ? recv(fd, b, size, 0) : -1;
}

static void verify(void) {
  for (int i = 0; i < KINDS + 2; i++) {
    struct sockaddr_storage is = {0};
    socklen_t n = sizeof is;
    CHECK(getsockname(address(i), (void *)&is, &n) == 0 && !memcmp(&is, &was[i], sizeof is));
  }
  int v = 0;
  socklen_t n = sizeof v;
  struct sock_filter code[8];
  CHECK(getsockopt(fds[PACKET], SOL_PACKET, PACKET_AUXDATA, &v, &n) == 0 && v == 1);
  n = 8; /* instructions */
  CHECK(getsockopt(fds[PACKET], SOL_SOCKET, SO_GET_FILTER, code, &n) == 0 && n == 4);
  unsigned mask = 0;
  n = sizeof mask;
  CHECK(getsockopt(icmp, SOL_RAW, ICMP_FILTER, &mask, &n) == 0 && mask == ~(1U << ICMP_ECHOREPLY));

  unsigned char b[256];
  while (recv(icmp, b, sizeof b, MSG_DONTWAIT) > 0) {}
  struct icmphdr echo4 = {.type = ICMP_ECHO, .un.echo.sequence = htons(1)};
  CHECK(send(ping4, &echo4, sizeof echo4, 0) == sizeof echo4);
  CHECK(receive(ping4, b, sizeof b) == sizeof echo4 && b[0] == ICMP_ECHOREPLY && !memcmp(b + 4, &((struct sockaddr_in *)&was[KINDS])->sin_port, 2));
  /* A raw socket gets a copy, with its header. */
  CHECK(receive(icmp, b, sizeof b) == 20 + sizeof echo4 && b[20] == ICMP_ECHOREPLY);
  struct icmp6_hdr echo6 = {.icmp6_type = ICMP6_ECHO_REQUEST};
  CHECK(send(ping6, &echo6, sizeof echo6, 0) == sizeof echo6);
  CHECK(receive(ping6, b, sizeof b) == sizeof echo6 && b[0] == ICMP6_ECHO_REPLY);
}

int main(int argc, char **argv) {
  client4.sin_family = AF_INET, client6.sin6_family = AF_INET6;
  if (argc != 3 || !inet_pton(AF_INET, argv[1], &client4.sin_addr) || !inet_pton(AF_INET6, argv[2], &client6.sin6_addr)) return 2;
  control_open();
  for (int i = 0; i < KINDS; i++) fds[i] = -1;
  for (;;) {
    struct pollfd p[KINDS + 1];
    for (int i = 0; i < KINDS; i++) p[i] = (struct pollfd){.fd = fds[i], .events = POLLIN};
    p[KINDS] = (struct pollfd){.fd = control, .events = POLLIN};
    if (poll(p, KINDS + 1, -1) < 0) continue;
    for (int i = 0; i < KINDS; i++) {
      char b[256];
      ssize_t k = p[i].revents ? recv(fds[i], b, sizeof b - 1, MSG_DONTWAIT) : -1;
      if (k < 0) continue;
      b[k] = 0;
      answer("%s %s", names[i], i == RAW && k > 20 ? b + 20 : b);
    }
    if (!p[KINDS].revents) continue;
    const char *question = asked();
    if (!strcmp(question, "build") && fds[0] < 0) build();
    if (!strcmp(question, "verify")) verify();
    verdict();
  }
}
