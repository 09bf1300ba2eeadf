/* SPDX-License-Identifier: Apache-2.0 */

#include "programs.h"

#include <arpa/inet.h>
#include <linux/filter.h>
#include <linux/if_ether.h>
#include <linux/if_packet.h>
#include <net/if.h>
#include <netinet/in.h>
#include <netinet/ip_icmp.h>
#include <poll.h>
#include <sys/socket.h>

#ifndef ICMP_FILTER
#define ICMP_FILTER 1
#endif

static int packet_socket_on(const char *interface, int type, int protocol)
{
	int fd = SYS(socket(AF_PACKET, type, 0));
	struct sockaddr_ll a = {.sll_family = AF_PACKET, .sll_protocol = htons(protocol), .sll_ifindex = if_nametoindex(interface)};
	CHECK(bind(fd, (void *)&a, sizeof a) == 0);
	return fd;
}

/* receives waits for a packet of so many bytes. */
static void receives(int fd, void *b, size_t room, ssize_t want)
{
	struct pollfd p = {.fd = fd, .events = POLLIN};
	CHECK(poll(&p, 1, 5000) == 1);
	ssize_t got = recv(fd, b, room, 0);
	if (got != want)
		fail("descriptor %d: %zd bytes instead of %zd", fd, got, want);
}

PROGRAM(packet_sockets, ROOT | ALL_CAPS, "packet sockets with options, a filter and memberships")
{
	/* What is not IPv4 of UDP whose first byte is 'y' does not pass. */
	struct sock_filter code[] = {
		BPF_STMT(BPF_LD | BPF_B | BPF_ABS, 14 + 9), BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, IPPROTO_UDP, 0, 3),
		BPF_STMT(BPF_LD | BPF_B | BPF_ABS, 14 + 28), BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, 'y', 0, 1),
		BPF_STMT(BPF_RET | BPF_K, 0xffff), BPF_STMT(BPF_RET | BPF_K, 0)};
	struct sock_fprog filter = {sizeof code / sizeof *code, code};
	int raw = packet_socket_on("lo", SOCK_RAW, ETH_P_IP), cooked = packet_socket_on("lo", SOCK_DGRAM, ETH_P_IP), on = 1;
	CHECK(setsockopt(raw, SOL_SOCKET, SO_ATTACH_FILTER, &filter, sizeof filter) == 0);
	CHECK(setsockopt(cooked, SOL_PACKET, PACKET_AUXDATA, &on, sizeof on) == 0);
	struct packet_mreq member = {.mr_ifindex = if_nametoindex("lo"), .mr_type = PACKET_MR_PROMISC};
	CHECK(setsockopt(cooked, SOL_PACKET, PACKET_ADD_MEMBERSHIP, &member, sizeof member) == 0);
	ready();
	char b[256];
	while (recv(cooked, b, sizeof b, MSG_DONTWAIT) > 0)
		;
	int udp = SYS(socket(AF_INET, SOCK_DGRAM, 0));
	struct sockaddr_in to = {.sin_family = AF_INET, .sin_port = htons(9), .sin_addr = {htonl(INADDR_LOOPBACK)}};
	CHECK(sendto(udp, "n", 1, 0, (void *)&to, sizeof to) == 1 && sendto(udp, "yes", 3, 0, (void *)&to, sizeof to) == 3);
	receives(raw, b, sizeof b, 14 + 28 + 3);
	receives(cooked, b, sizeof b, 28 + 1);
	socklen_t size = sizeof on;
	CHECK(getsockopt(cooked, SOL_PACKET, PACKET_AUXDATA, &on, &size) == 0 && on == 1);
	struct sockaddr_ll a;
	size = sizeof a;
	CHECK(getsockname(raw, (void *)&a, &size) == 0 && a.sll_protocol == htons(ETH_P_IP) && a.sll_ifindex == (int)if_nametoindex("lo"));
}

REFUSED(packet_ring, ROOT | ALL_CAPS, "PACKET_RX_RING", "a packet socket with a ring in memory")
{
	int fd = packet_socket_on("lo", SOCK_RAW, ETH_P_IP);
	struct tpacket_req ring = {.tp_block_size = 4096, .tp_block_nr = 1, .tp_frame_size = 2048, .tp_frame_nr = 2};
	CHECK(setsockopt(fd, SOL_PACKET, PACKET_RX_RING, &ring, sizeof ring) == 0);
	ready();
	struct tpacket_hdr *head = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	CHECK(head != MAP_FAILED && head->tp_status == TP_STATUS_KERNEL);
}

PROGRAM(raw_sockets, ROOT | ALL_CAPS, "raw sockets with a filter of ICMP, headers of their own and a peer")
{
	int icmp = SYS(socket(AF_INET, SOCK_RAW, IPPROTO_ICMP)), own = SYS(socket(AF_INET, SOCK_RAW, 253)), on = 1;
	unsigned only_replies = ~(1U << ICMP_ECHOREPLY), mask = 0;
	struct sockaddr_in lo = {.sin_family = AF_INET, .sin_addr = {htonl(INADDR_LOOPBACK)}};
	CHECK(setsockopt(icmp, SOL_RAW, ICMP_FILTER, &only_replies, sizeof only_replies) == 0);
	CHECK(setsockopt(own, IPPROTO_IP, IP_HDRINCL, &on, sizeof on) == 0 && connect(own, (void *)&lo, sizeof lo) == 0);
	ready();
	socklen_t size = sizeof mask;
	CHECK(getsockopt(icmp, SOL_RAW, ICMP_FILTER, &mask, &size) == 0 && mask == only_replies);
	/* The sum of its 16-bit words is 0xffff. */
	unsigned char ping[8] = {ICMP_ECHO, 0, 0xe5, 0xca, 0x12, 0x34, 0, 1}, b[256];
	CHECK(sendto(icmp, ping, sizeof ping, 0, (void *)&lo, sizeof lo) == sizeof ping);
	receives(icmp, b, sizeof b, 20 + sizeof ping);
	CHECK(b[20] == ICMP_ECHOREPLY && b[24] == 0x12);
	/* Header and sum are the program's; the kernel fills in what is 0. */
	unsigned char packet[24] = {0x45, 0, 0, 24, 0, 0, 0, 0, 64, 253, 0, 0, 127, 0, 0, 1, 127, 0, 0, 1, 'o', 'w', 'n', '!'};
	CHECK(send(own, packet, sizeof packet, 0) == sizeof packet);
	receives(own, b, sizeof b, sizeof packet);
	CHECK(!memcmp(b + 20, "own!", 4));
}
