// SPDX-License-Identifier: Apache-2.0
//
// Sockets of packet(7): what they are bound to, options, filters, memberships and
// fan-out groups. Each verification sends datagrams over the loopback and looks at
// who gets which of them.
// usage: packet | packet ring|program
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <linux/filter.h>
#include <linux/if_ether.h>
#include <linux/if_packet.h>
#include <linux/netlink.h>
#include <linux/rtnetlink.h>
#include <net/if.h>
#include <netinet/in.h>
#include <poll.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include "kerneltest.h"

#ifndef PACKET_IGNORE_OUTGOING
#define PACKET_IGNORE_OUTGOING 23
#endif

static int filtered, all, idle, halves[2], udp, lo;
static struct sockaddr_in at;

static int packet(int type) {
  int fd = socket(AF_PACKET, type, 0);
  MUST(fd >= 0);
  return fd;
}

static void attach(int fd, int index, int protocol) {
  struct sockaddr_ll a = {.sll_family = AF_PACKET, .sll_protocol = htons(protocol), .sll_ifindex = index};
  MUST(bind(fd, (void *)&a, sizeof a) == 0);
}

static void set(int fd, int name, int value) { MUST(setsockopt(fd, SOL_PACKET, name, &value, sizeof value) == 0); }

static int number(int fd, int level, int name) {
  int v = -1;
  socklen_t n = sizeof v;
  return getsockopt(fd, level, name, &v, &n) ? -1 : v;
}

// marker filters for UDP to our port whose first byte is c, behind a header of the
// link of so many bytes.
static void marker(int fd, unsigned head, char c) {
  struct sock_filter code[] = {
      BPF_STMT(BPF_LD | BPF_B | BPF_ABS, head + 9), BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, IPPROTO_UDP, 0, 5),
      BPF_STMT(BPF_LD | BPF_H | BPF_ABS, head + 22), BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, ntohs(at.sin_port), 0, 3),
      BPF_STMT(BPF_LD | BPF_B | BPF_ABS, head + 28), BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, (unsigned)c, 0, 1),
      BPF_STMT(BPF_RET | BPF_K, 0xffff), BPF_STMT(BPF_RET | BPF_K, 0)};
  struct sock_fprog prog = {sizeof code / sizeof *code, code};
  MUST(setsockopt(fd, SOL_SOCKET, SO_ATTACH_FILTER, &prog, sizeof prog) == 0);
}

// next returns how many bytes come, 0 for nothing, and what belongs to them.
static ssize_t next(int fd, unsigned char *b, size_t size, struct sockaddr_ll *from, int *auxiliary) {
  char control[256];
  struct iovec v = {b, size};
  struct msghdr m = {.msg_name = from, .msg_namelen = sizeof *from, .msg_iov = &v, .msg_iovlen = 1, .msg_control = control, .msg_controllen = sizeof control};
  struct pollfd p = {.fd = fd, .events = POLLIN};
  if (poll(&p, 1, 0) != 1) return 0;
  ssize_t n = recvmsg(fd, &m, MSG_DONTWAIT);
  *auxiliary = 0;
  for (struct cmsghdr *c = CMSG_FIRSTHDR(&m); c; c = CMSG_NXTHDR(&m, c))
    if (c->cmsg_level == SOL_PACKET && c->cmsg_type == PACKET_AUXDATA) *auxiliary = 1;
  return n < 0 ? 0 : n;
}

static void bound(int fd, int index, int protocol) {
  struct sockaddr_ll a = {0};
  socklen_t n = sizeof a;
  CHECK(getsockname(fd, (void *)&a, &n) == 0 && a.sll_ifindex == index && ntohs(a.sll_protocol) == protocol, "fd %d: interface %d, protocol %x", fd, a.sll_ifindex, ntohs(a.sll_protocol));
}

static int member(int fd, int name, int type) {
  struct packet_mreq r = {.mr_ifindex = lo, .mr_type = type};
  if (type == PACKET_MR_MULTICAST) r.mr_alen = 6, memcpy(r.mr_address, "\x01\x00\x5e\x01\x02\x03", 6);
  return setsockopt(fd, SOL_PACKET, name, &r, sizeof r);
}

#ifndef IFLA_PROMISCUITY
#define IFLA_PROMISCUITY 30
#endif

// promiscuity is how many have made the loopback promiscuous (rtnetlink(7)).
static unsigned promiscuity(void) {
  struct { struct nlmsghdr h; struct ifinfomsg i; } r = {{sizeof r, RTM_GETLINK, NLM_F_REQUEST, 0, 0}, {.ifi_index = lo}};
  static unsigned char b[1 << 16] __attribute__((aligned(8)));
  int fd = socket(AF_NETLINK, SOCK_RAW, NETLINK_ROUTE);
  MUST(fd >= 0 && send(fd, &r, sizeof r, 0) == sizeof r);
  ssize_t n = recv(fd, b, sizeof b, 0);
  close(fd);
  MUST(n > (ssize_t)sizeof r);
  struct rtattr *a = (void *)(b + NLMSG_LENGTH(sizeof(struct ifinfomsg)));
  for (int left = n - NLMSG_LENGTH(sizeof(struct ifinfomsg)); RTA_OK(a, left); a = RTA_NEXT(a, left))
    if (a->rta_type == IFLA_PROMISCUITY) return *(unsigned *)RTA_DATA(a);
  return 0;
}

// hears tells whether the loopback takes the multicast address.
static int hears(void) {
  char line[256];
  int found = 0;
  FILE *f = fopen("/proc/self/net/dev_mcast", "r");
  MUST(f != 0);
  while (fgets(line, sizeof line, f)) found |= strstr(line, "01005e010203") != 0;
  fclose(f);
  return found;
}

static void verify(void) {
  bound(filtered, lo, ETH_P_ALL);
  bound(all, 0, ETH_P_ALL);
  bound(idle, 0, 0);
  CHECK(number(filtered, SOL_PACKET, PACKET_VERSION) == TPACKET_V2 && number(filtered, SOL_PACKET, PACKET_RESERVE) == 64);
  CHECK(number(filtered, SOL_PACKET, PACKET_AUXDATA) == 1 && number(filtered, SOL_PACKET, PACKET_ORIGDEV) == 1 && number(filtered, SOL_PACKET, PACKET_TIMESTAMP) == 16);
  CHECK(number(all, SOL_PACKET, PACKET_IGNORE_OUTGOING) == 1 && number(all, SOL_PACKET, PACKET_LOSS) == 1 && number(all, SOL_PACKET, PACKET_AUXDATA) == 0);
  CHECK(number(all, SOL_SOCKET, SO_RCVBUF) == 2 * 100000, "SO_RCVBUF %d", number(all, SOL_SOCKET, SO_RCVBUF));
  for (int i = 0; i < 2; i++) {
    int v = number(halves[i], SOL_PACKET, PACKET_FANOUT);
    CHECK((v & 0xffff) == 77 && (v >> 16 & 0xff) == PACKET_FANOUT_LB, "fan-out %x", v);
  }

  unsigned char b[2048];
  struct sockaddr_ll from;
  int auxiliary, counts[2] = {0, 0};
  // What came while nobody looked is gone or not, as it may be.
  int list[] = {filtered, all, halves[0], halves[1]};
  for (unsigned i = 0; i < 4; i++)
    while (next(list[i], b, sizeof b, &from, &auxiliary) > 0);
  for (int i = 0; i < 8; i++)
    MUST(sendto(udp, i & 1 ? "no" : "yes", 2 + !(i & 1), 0, (void *)&at, sizeof at) > 0);
  // The loopback shows what goes out, and what comes in.
  int out = 0, in = 0;
  for (ssize_t n; (n = next(filtered, b, sizeof b, &from, &auxiliary)) > 0;) {
    CHECK(n == 14 + 28 + 3 && !memcmp(b + 42, "yes", 3) && auxiliary, "%zd bytes, auxiliary data %d", n, auxiliary);
    if (from.sll_pkttype == PACKET_OUTGOING) out++; else in++;
  }
  CHECK(out == 4 && in == 4, "%d out, %d in", out, in);
  in = 0;
  for (ssize_t n; (n = next(all, b, sizeof b, &from, &auxiliary)) > 0; in++)
    CHECK(n == 28 + 3 && from.sll_pkttype != PACKET_OUTGOING && from.sll_ifindex == lo && !auxiliary, "%zd bytes, type %d", n, from.sll_pkttype);
  CHECK(in == 4, "%d in", in);
  for (int i = 0; i < 2; i++)
    while (next(halves[i], b, sizeof b, &from, &auxiliary) > 0) counts[i]++;
  CHECK(counts[0] + counts[1] == 4, "of four packets the group got %d and %d", counts[0], counts[1]);
  CHECK(next(idle, b, sizeof b, &from, &auxiliary) == 0);

  // The kernel counts per socket how often it was asked, and takes any drop.
  unsigned was = promiscuity();
  CHECK(was > 0 && hears() && member(idle, PACKET_DROP_MEMBERSHIP, PACKET_MR_PROMISC) == 0);
  CHECK(promiscuity() == was, "a member once");
  CHECK(member(idle, PACKET_DROP_MEMBERSHIP, PACKET_MR_PROMISC) == 0 && member(idle, PACKET_DROP_MEMBERSHIP, PACKET_MR_MULTICAST) == 0);
  CHECK(promiscuity() == was - 1 && !hears());
  for (int i = 0; i < 2; i++) MUST(member(idle, PACKET_ADD_MEMBERSHIP, PACKET_MR_PROMISC) == 0);
  MUST(member(idle, PACKET_ADD_MEMBERSHIP, PACKET_MR_MULTICAST) == 0);
}

static void nothing(void) {}

static void refused(const char *kind) {
  MUST((idle = packet(SOCK_RAW)) == 3);
  if (!strcmp(kind, "ring")) {
    struct tpacket_req r = {.tp_block_size = 4096, .tp_block_nr = 1, .tp_frame_size = 2048, .tp_frame_nr = 2};
    MUST(setsockopt(3, SOL_PACKET, PACKET_RX_RING, &r, sizeof r) == 0);
  } else {
    attach(3, lo, ETH_P_IP);
    set(3, PACKET_FANOUT, 78 | PACKET_FANOUT_CBPF << 16);
  }
}

int main(int argc, char **argv) {
  lo = if_nametoindex("lo");
  if (argc > 1) {
    refused(argv[1]);
    serve(nothing);
  }
  at = (struct sockaddr_in){.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
  socklen_t n = sizeof at;
  MUST((udp = socket(AF_INET, SOCK_DGRAM, 0)) >= 0 && bind(udp, (void *)&at, n) == 0 && getsockname(udp, (void *)&at, &n) == 0);
  filtered = packet(SOCK_RAW), all = packet(SOCK_DGRAM), idle = packet(SOCK_RAW);
  marker(filtered, 14, 'y'), marker(all, 0, 'y');
  set(filtered, PACKET_VERSION, TPACKET_V2), set(filtered, PACKET_RESERVE, 64), set(filtered, PACKET_AUXDATA, 1);
  set(filtered, PACKET_ORIGDEV, 1), set(filtered, PACKET_TIMESTAMP, 16), set(filtered, PACKET_COPY_THRESH, 4);
  set(all, PACKET_IGNORE_OUTGOING, 1), set(all, PACKET_LOSS, 1);
  MUST(setsockopt(all, SOL_SOCKET, SO_RCVBUF, &(int){100000}, sizeof(int)) == 0);
  attach(filtered, lo, ETH_P_ALL), attach(all, 0, ETH_P_ALL);
  for (int i = 0; i < 2; i++) MUST(member(idle, PACKET_ADD_MEMBERSHIP, PACKET_MR_PROMISC) == 0);
  MUST(member(idle, PACKET_ADD_MEMBERSHIP, PACKET_MR_MULTICAST) == 0);
  for (int i = 0; i < 2; i++) {
    halves[i] = packet(SOCK_RAW);
    marker(halves[i], 14, 'y');
    attach(halves[i], lo, ETH_P_IP);
    set(halves[i], PACKET_FANOUT, 77 | PACKET_FANOUT_LB << 16);
  }
  serve(verify);
}
