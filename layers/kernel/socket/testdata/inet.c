// SPDX-License-Identifier: Apache-2.0
//
// Sockets of the internet protocols and netlink beside TCP: datagrams that were
// not read, with their senders; members of multicast groups; packet filters; raw
// sockets. Each verification looks at what was built before and builds it anew.
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <linux/filter.h>
#include <linux/netlink.h>
#include <netinet/in.h>
#include <netinet/ip_icmp.h>
#include <sys/socket.h>
#include "kerneltest.h"

#ifndef ICMP_FILTER
#define ICMP_FILTER 1
#endif

static int any, any6, from, from6, bound, to, member, source, member6, filtered, raw, peer, uevent, generic;
static struct sockaddr_in any_at, from_at, filtered_at;
static struct sockaddr_in6 any6_at, from6_at;
static struct sockaddr_in bound_at;

static int udp(int family, void *at, socklen_t n) {
  int fd;
  MUST((fd = socket(family, SOCK_DGRAM, 0)) >= 0);
  MUST(bind(fd, at, n) == 0 && getsockname(fd, at, &n) == 0);
  return fd;
}

static void build(void) {
  static char big[60000];
  memset(big, 'b', sizeof big);
  struct sockaddr_in a = any_at;
  a.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  MUST(sendto(from, "one", 3, 0, (void *)&a, sizeof a) == 3 && sendto(from, "", 0, 0, (void *)&a, sizeof a) == 0);
  MUST(sendto(from, big, sizeof big, 0, (void *)&a, sizeof a) == sizeof big);
  struct sockaddr_in6 b = any6_at;
  b.sin6_addr = in6addr_loopback;
  MUST(sendto(from6, "six", 3, 0, (void *)&b, sizeof b) == 3);
  MUST(send(to, "connected", 9, 0) == 9);
  // "no" does not pass the filter.
  MUST(sendto(from, "no", 2, 0, (void *)&filtered_at, sizeof filtered_at) == 2);
  MUST(sendto(from, "yes", 3, 0, (void *)&filtered_at, sizeof filtered_at) == 3);
}

static void got(int fd, const char *want, int size, void *sender, socklen_t n) {
  static char b[65536];
  struct sockaddr_storage a;
  memset(&a, 0, sizeof a);
  socklen_t m = sizeof a;
  ssize_t k = recvfrom(fd, b, sizeof b, MSG_DONTWAIT, (void *)&a, &m);
  CHECK(k == size && (!want || !memcmp(b, want, size)), "fd %d: %zd bytes instead of %d", fd, k, size);
  CHECK(m == n && !memcmp(&a, sender, n), "fd %d: from another sender", fd);
}

static int sources(int fd, const char *group, unsigned *mode) {
  struct {
    struct group_filter f;
    struct sockaddr_storage more[8];
  } f;
  memset(&f, 0, sizeof f);
  f.f.gf_interface = 1, f.f.gf_numsrc = 8;
  int six = strchr(group, ':') != 0;
  f.f.gf_group.ss_family = six ? AF_INET6 : AF_INET;
  inet_pton(f.f.gf_group.ss_family, group, six ? (void *)&((struct sockaddr_in6 *)&f.f.gf_group)->sin6_addr : (void *)&((struct sockaddr_in *)&f.f.gf_group)->sin_addr);
  socklen_t n = sizeof f;
  if (getsockopt(fd, six ? IPPROTO_IPV6 : IPPROTO_IP, 48, &f, &n)) return -1;
  *mode = f.f.gf_fmode;
  return f.f.gf_numsrc;
}

static void verify(void) {
  int v = 0;
  socklen_t n = sizeof v;
  CHECK(getsockopt(any, SOL_SOCKET, SO_PEEK_OFF, &v, &n) == 0 && v == 2, "SO_PEEK_OFF %d", v);
  got(any, "one", 3, &from_at, sizeof from_at);
  got(any, "", 0, &from_at, sizeof from_at);
  got(any, 0, 60000, &from_at, sizeof from_at);
  got(any6, "six", 3, &from6_at, sizeof from6_at);
  struct sockaddr_in to_at;
  n = sizeof to_at;
  CHECK(getsockname(to, (void *)&to_at, &n) == 0);
  got(bound, "connected", 9, &to_at, sizeof to_at);
  got(filtered, "yes", 3, &from_at, sizeof from_at);
  char b[64];
  CHECK(recv(filtered, b, sizeof b, MSG_DONTWAIT) < 0 && errno == EAGAIN, "what the filter drops has come");
  struct sock_filter code[8];
  n = 8;
  CHECK(getsockopt(filtered, SOL_SOCKET, SO_GET_FILTER, code, &n) == 0 && n == 4, "a filter of %d", n);
  n = sizeof v;
  CHECK(getsockopt(filtered, SOL_SOCKET, SO_LOCK_FILTER, &v, &n) == 0 && v == 1);
  CHECK(setsockopt(any, SOL_SOCKET, SO_PEEK_OFF, &(int){2}, sizeof v) == 0);

  unsigned mode = 9;
  CHECK(sources(member, "239.1.2.3", &mode) == 0 && mode == 0, "mode %u", mode);
  CHECK(sources(source, "232.1.2.3", &mode) == 2 && mode == 1, "mode %u", mode);
  CHECK(sources(source, "239.9.9.9", &mode) == -1);
  CHECK(sources(member6, "ff05::77", &mode) == 0 && mode == 0);

  struct icmp_filter { unsigned data; } f = {0};
  n = sizeof f;
  CHECK(getsockopt(raw, SOL_RAW, ICMP_FILTER, &f, &n) == 0 && f.data == ~(1U << ICMP_ECHOREPLY), "%x", f.data);
  unsigned char ping[16] = {ICMP_ECHO, 0, 0, 0, 0x12, 0x34, 0, 1};
  unsigned sum = 0;
  for (int i = 0; i < 16; i += 2) sum += ping[i] << 8 | ping[i + 1];
  sum = ~(sum + (sum >> 16));
  ping[2] = sum >> 8, ping[3] = sum;
  struct sockaddr_in lo = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
  unsigned char packet[128];
  while (recv(raw, packet, sizeof packet, MSG_DONTWAIT) > 0) {} // of the connected one
  CHECK(sendto(raw, ping, sizeof ping, 0, (void *)&lo, sizeof lo) == sizeof ping);
  ssize_t k = recv(raw, packet, sizeof packet, 0);
  CHECK(k == 20 + sizeof ping && packet[20] == ICMP_ECHOREPLY && packet[24] == 0x12, "%zd bytes of ICMP", k);

  // What is connected needs no address, and gets from its peer only.
  while (recv(peer, packet, sizeof packet, MSG_DONTWAIT) > 0) {}
  ping[4] = 0x56, ping[2] = ping[3] = sum = 0;
  for (int i = 0; i < 16; i += 2) sum += ping[i] << 8 | ping[i + 1];
  sum = ~(sum + (sum >> 16));
  ping[2] = sum >> 8, ping[3] = sum;
  CHECK(send(peer, ping, sizeof ping, 0) == sizeof ping);
  struct sockaddr_in who;
  n = sizeof who;
  k = recvfrom(peer, packet, sizeof packet, 0, (void *)&who, &n);
  CHECK(k == 20 + sizeof ping && packet[24] == 0x56 && who.sin_addr.s_addr == htonl(0x7f000002), "%zd bytes of a peer's ICMP", k);

  struct sockaddr_nl nl;
  n = sizeof nl;
  CHECK(getsockname(uevent, (void *)&nl, &n) == 0 && nl.nl_groups == 1);
  n = sizeof v;
  CHECK(getsockopt(generic, SOL_SOCKET, SO_PROTOCOL, &v, &n) == 0 && v == NETLINK_GENERIC);
  build();
}

static void join(int fd, const char *group, const char *from) {
  struct group_source_req r;
  memset(&r, 0, sizeof r);
  r.gsr_interface = 1;
  int six = strchr(group, ':') != 0;
  r.gsr_group.ss_family = r.gsr_source.ss_family = six ? AF_INET6 : AF_INET;
  inet_pton(r.gsr_group.ss_family, group, six ? (void *)&((struct sockaddr_in6 *)&r.gsr_group)->sin6_addr : (void *)&((struct sockaddr_in *)&r.gsr_group)->sin_addr);
  if (from) inet_pton(AF_INET, from, &((struct sockaddr_in *)&r.gsr_source)->sin_addr);
  MUST(setsockopt(fd, six ? IPPROTO_IPV6 : IPPROTO_IP, from ? MCAST_JOIN_SOURCE_GROUP : MCAST_JOIN_GROUP, &r, from ? sizeof r : sizeof(struct group_req)) == 0);
}

int main(void) {
  any_at.sin_family = AF_INET;
  any = udp(AF_INET, &any_at, sizeof any_at);
  MUST(setsockopt(any, SOL_SOCKET, SO_PEEK_OFF, &(int){2}, sizeof(int)) == 0);
  any6_at.sin6_family = AF_INET6;
  any6 = udp(AF_INET6, &any6_at, sizeof any6_at);
  from_at = (struct sockaddr_in){.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
  from = udp(AF_INET, &from_at, sizeof from_at);
  from6_at = (struct sockaddr_in6){.sin6_family = AF_INET6, .sin6_addr = in6addr_loopback};
  from6 = udp(AF_INET6, &from6_at, sizeof from6_at);
  bound_at = (struct sockaddr_in){.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
  bound = udp(AF_INET, &bound_at, sizeof bound_at);
  MUST((to = socket(AF_INET, SOCK_DGRAM, 0)) >= 0 && connect(to, (void *)&bound_at, sizeof bound_at) == 0);
  struct sockaddr_in self;
  socklen_t n = sizeof self;
  MUST(getsockname(to, (void *)&self, &n) == 0 && connect(bound, (void *)&self, n) == 0);
  filtered_at = (struct sockaddr_in){.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
  filtered = udp(AF_INET, &filtered_at, sizeof filtered_at);
  struct sock_filter code[] = {
      // The first byte behind the header of UDP.
      BPF_STMT(BPF_LD | BPF_B | BPF_ABS, 8), BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, 'y', 0, 1),
      BPF_STMT(BPF_RET | BPF_K, 0xffff), BPF_STMT(BPF_RET | BPF_K, 0)};
  struct sock_fprog prog = {4, code};
  MUST(setsockopt(filtered, SOL_SOCKET, SO_ATTACH_FILTER, &prog, sizeof prog) == 0);
  MUST(setsockopt(filtered, SOL_SOCKET, SO_LOCK_FILTER, &(int){1}, sizeof(int)) == 0);
  MUST((member = socket(AF_INET, SOCK_DGRAM, 0)) >= 0 && (source = socket(AF_INET, SOCK_DGRAM, 0)) >= 0 && (member6 = socket(AF_INET6, SOCK_DGRAM, 0)) >= 0);
  join(member, "239.1.2.3", 0), join(member6, "ff05::77", 0);
  join(source, "232.1.2.3", "10.1.1.1"), join(source, "232.1.2.3", "10.1.1.2");
  MUST((raw = socket(AF_INET, SOCK_RAW, IPPROTO_ICMP)) >= 0);
  unsigned f = ~(1U << ICMP_ECHOREPLY);
  MUST(setsockopt(raw, SOL_RAW, ICMP_FILTER, &f, sizeof f) == 0);
  struct sockaddr_in second = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(0x7f000002)};
  MUST((peer = socket(AF_INET, SOCK_RAW, IPPROTO_ICMP)) >= 0 && connect(peer, (void *)&second, sizeof second) == 0);
  struct sockaddr_nl nl = {.nl_family = AF_NETLINK, .nl_groups = 1};
  MUST((uevent = socket(AF_NETLINK, SOCK_DGRAM, NETLINK_KOBJECT_UEVENT)) >= 0 && bind(uevent, (void *)&nl, sizeof nl) == 0);
  MUST((generic = socket(AF_NETLINK, SOCK_RAW, NETLINK_GENERIC)) >= 0);
  build();
  serve(verify);
}
