// SPDX-License-Identifier: Apache-2.0

package procfs

import (
	"net/netip"
	"strings"
	"testing"
)

func TestParseInet(t *testing.T) {
	addr := netip.MustParseAddrPort
	equal(t, must(ParseInet(golden(t, "tcp")))(t), []InetSocket{
		{Local: addr("127.0.0.1:8080"), Remote: addr("0.0.0.0:0"), State: TCPListen, RxQueue: 3, UID: 1000, Inode: 1536},
		{Local: addr("192.0.2.2:47980"), Remote: addr("203.0.113.80:443"), State: 6, TimerActive: 3, TimerWhen: 15}})
	equal(t, must(ParseInet(golden(t, "tcp6")))(t), []InetSocket{
		{Local: addr("[::1]:8080"), Remote: addr("[2001:db8::1]:0"), State: 1, TxQueue: 16, TimerActive: 1, TimerWhen: 20, Inode: 30733}})
	text := string(golden(t, "tcp"))
	refuses(t, ParseInet, strings.Replace(text, "0100007F:1F90", "0100007:1F90", 1), "hexadecimal")
	refuses(t, ParseInet, strings.Replace(text, ":1F90", ":1F90A", 1), "out of range")
	refuses(t, ParseInet, strings.Replace(text, "  sl", "  ls", 1), "heading")
}

func TestParseUnix(t *testing.T) {
	got := must(ParseUnix(golden(t, "unix")))(t)
	equal(t, got, []UnixSocket{
		{RefCount: 3, Type: 1, State: 3, Inode: 158},
		{RefCount: 2, Flags: 1 << 16, Type: 1, State: 1, Inode: 30732, Path: "@x\ny"},
		{RefCount: 3, Type: 2, State: 1, Inode: 159, Path: "/run/a b"}})
	if !got[1].Listening() || got[0].Listening() {
		t.Error("Listening does not follow the flag")
	}
	refuses(t, ParseUnix, "Num \nxyz\n", "address")
	long := string(golden(t, "unix")) + strings.Repeat("z", maxUnixPath) + "\n"
	refuses(t, ParseUnix, long, "address")
}

func TestParseOtherSockets(t *testing.T) {
	equal(t, must(ParseNetlink(golden(t, "netlink")))(t), []NetlinkSocket{
		{Protocol: 0, PortID: 4194306, Groups: 0x110, RefCount: 2, Drops: 7, Inode: 4}})
	equal(t, must(ParsePacket(golden(t, "packet")))(t), []PacketSocket{
		{RefCount: 3, Type: 3, Protocol: 3, Interface: 2, Running: true, Inode: 30735}})
}

func TestParseSysVIPC(t *testing.T) {
	equal(t, must(ParseSysVShm(golden(t, "shm")))(t), []SysVShm{{
		IPCPerm: IPCPerm{Key: -559038737, ID: 1, Mode: 0o1600, UID: 1, GID: 2, CUID: 3, CGID: 4},
		Size:    8192, CreatorPid: 20047, LastPid: 9, Attached: 2, AttachT: 5, DetachT: 6, ChangeT: 1795362288,
		ResidentBytes: 4096}})
	equal(t, must(ParseSysVMsg(golden(t, "msg")))(t), []SysVMsg{{
		IPCPerm: IPCPerm{Key: 7, ID: 1, Mode: 0o644, UID: 4, GID: 5, CUID: 6, CGID: 7},
		Bytes:   5, Messages: 1, LastSendPid: 2, LastRecvPid: 3, SendT: 8, ReceiveT: 9, ChangedT: 1795362288}})
	equal(t, must(ParseSysVSem(golden(t, "sem")))(t), []SysVSem{{
		IPCPerm: IPCPerm{ID: 1, Mode: 0o600}, Semaphores: 3, ChangeT: 1795362288}})
	refuses(t, ParseSysVSem, string(golden(t, "sem"))+"1 2 3 4\n", "uid is missing")
	refuses(t, ParseSysVSem, strings.Replace(string(golden(t, "sem")), "288\n", "288 9\n", 1), "unexpected")
}

func TestParseCPUInfo(t *testing.T) {
	got := must(ParseCPUInfo(golden(t, "cpuinfo")))(t)
	if len(got) != 2 || got[1].Processor != 1 {
		t.Fatalf("got %d processors", len(got))
	}
	flags := got[0].Flags
	if len(flags) < 50 || flags[0] != "fpu" || &flags[0] != &got[1].Flags[0] {
		t.Errorf("flags %v are not shared or not whole", flags)
	}
	got[0].Flags = nil
	equal(t, got[0], CPU{Vendor: "AuthenticAMD", Model: "Example CPU", Family: 25, ModelID: 17, Stepping: 1, Microcode: "0x1"})
	refuses(t, ParseCPUInfo, "flags : x\n", "before the first")
}
