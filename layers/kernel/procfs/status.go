// SPDX-License-Identifier: Apache-2.0

package procfs

import (
	"bytes"
	"errors"
	"fmt"
	"strings"
)

// IDs are the real, effective, saved and file-system id of a thread.
type IDs struct {
	Real, Effective, Saved, FS uint32
}

// CapSets are capability sets as bit masks (bit n is CAP number n).
type CapSets struct {
	Inheritable, Permitted, Effective, Bounding, Ambient uint64
}

// SigSets are signal masks: bit n-1 is signal n.
type SigSets struct {
	Pending, SharedPending, Blocked, Ignored, Caught uint64
	Queued, QueueLimit                               uint64 // SigQ, of the real uid
}

// Seccomp modes of prctl(PR_GET_SECCOMP).
const (
	SeccompDisabled = 0
	SeccompStrict   = 1
	SeccompFilter   = 2
)

// Status is /proc/PID/status (fs/proc/array.c, proc_pid_status). Uids and gids
// are those of the reader's user namespace; pids of the proc mount's pid
// namespace, except the NS lists, which go from that one to the innermost.
type Status struct {
	Name  string // unescaped
	State TaskState
	Umask int // -1: not shown (zombies, kernel threads)

	Tgid, Ngid, Pid, PPid, TracerPid int
	UID, GID                         IDs
	FDSize                           uint64
	Groups                           []uint32
	NStgid, NSpid, NSpgid, NSsid     []int
	Kthread                          bool

	// HasMM: the task has an address space, so Vm is filled.
	HasMM bool
	Vm    StatusVM

	CoreDumping bool
	THPEnabled  bool
	UntagMask   uint64

	Threads        int
	Sig            SigSets
	Cap            CapSets
	NoNewPrivs     bool
	Seccomp        int // SeccompDisabled, SeccompStrict, SeccompFilter
	SeccompFilters int // -1: not shown (before 5.9)

	SpeculationStoreBypass    string
	SpeculationIndirectBranch string
	CPUsAllowedList           string
	MemsAllowedList           string

	// X86ThreadFeatures are "shstk" and "wrss" where on.
	X86ThreadFeatures, X86ThreadFeaturesLocked []string

	VoluntarySwitches, NonvoluntarySwitches uint64

	// Extra holds lines that this package does not know, value by name.
	Extra map[string]string
}

// StatusVM holds the memory lines of status, in bytes.
type StatusVM struct {
	Peak, Size, Locked, Pinned, HWM, RSS uint64
	RSSAnon, RSSFile, RSSShmem           uint64
	Data, Stack, Exe, Lib, PTE, PMD      uint64
	Swap, Hugetlb                        uint64
}

// ParseStatus reads /proc/PID/status.
func ParseStatus(data []byte) (Status, error) {
	p := statusParser{out: Status{Umask: -1, SeccompFilters: -1}}
	if err := eachLine("status", data, p.line); err != nil {
		return Status{}, err
	}
	for i, need := range statusNeeded {
		if p.seen&(1<<i) == 0 {
			return Status{}, parseError("status", 0, data, fmt.Errorf("no line %q", need))
		}
	}
	return p.out, nil
}

// statusNeeded are the lines every kernel and task has: without one of them
// the text is cut off. SigCgt is in the last third.
var statusNeeded = [...]string{"Name", "State", "Tgid", "Pid", "PPid", "TracerPid", "Uid", "Gid",
	"Threads", "SigPnd", "ShdPnd", "SigBlk", "SigIgn", "SigCgt", "CapInh", "CapPrm", "CapEff", "CapBnd"}

type statusParser struct {
	out  Status
	seen uint32 // bit i: statusNeeded[i]
}

func (p *statusParser) line(line []byte) error {
	key, value, ok := bytes.Cut(line, []byte{':'})
	if !ok || len(key) == 0 {
		return errors.New("no colon")
	}
	for i, need := range statusNeeded {
		if string(key) == need {
			if p.seen&(1<<i) != 0 {
				return errors.New("the line occurs twice")
			}
			p.seen |= 1 << i
		}
	}
	c := cursor{rest: value}
	s := &p.out
	if s.setText(string(key), value, &c) {
		return c.err
	}
	if s.setID(key, &c) || s.setSignal(key, &c) || s.setCap(key, &c) || s.setVM(key, &c) || s.setOther(key, &c) {
		return c.end()
	}
	if s.Extra == nil {
		s.Extra = make(map[string]string)
	}
	s.Extra[string(key)] = strings.TrimSpace(string(value))
	return nil
}

// setText takes the lines that are not fields and numbers.
func (s *Status) setText(key string, value []byte, c *cursor) bool {
	text := func() string { return string(bytes.TrimSpace(value)) }
	switch key {
	case "Name":
		c.literal("\t")
		s.Name = c.comm()
	case "State":
		c.skip()
		if len(c.rest) > 0 {
			s.State = TaskState(c.rest[0])
		}
		if !s.State.valid() {
			c.fail("state", errors.New("is unknown"))
		}
	case "Groups":
		s.Groups = c.list32("group")
	case "Speculation_Store_Bypass":
		s.SpeculationStoreBypass = text()
	case "SpeculationIndirectBranch":
		s.SpeculationIndirectBranch = text()
	case "Cpus_allowed_list":
		s.CPUsAllowedList = text()
	case "Mems_allowed_list":
		s.MemsAllowedList = text()
	case "Cpus_allowed", "Mems_allowed": // the lists say the same
	case "x86_Thread_features":
		s.X86ThreadFeatures = strings.Fields(string(value))
	case "x86_Thread_features_locked":
		s.X86ThreadFeaturesLocked = strings.Fields(string(value))
	default:
		return false
	}
	return true
}

// setID takes ids of the task and its credentials.
func (s *Status) setID(key []byte, c *cursor) bool {
	switch string(key) {
	case "Umask":
		s.Umask = int(c.number(c.field("umask"), 8, 16, "umask"))
	case "Tgid":
		s.Tgid = c.int("pid")
	case "Ngid":
		s.Ngid = c.int("id")
	case "Pid":
		s.Pid = c.int("pid")
	case "PPid":
		s.PPid = c.int("pid")
	case "TracerPid":
		s.TracerPid = c.int("pid")
	case "Uid":
		s.UID = c.ids()
	case "Gid":
		s.GID = c.ids()
	case "FDSize":
		s.FDSize = c.dec("size")
	case "NStgid":
		s.NStgid = c.list("pid")
	case "NSpid":
		s.NSpid = c.list("pid")
	case "NSpgid":
		s.NSpgid = c.list("pid")
	case "NSsid":
		s.NSsid = c.list("pid")
	default:
		return false
	}
	return true
}

func (s *Status) setSignal(key []byte, c *cursor) bool {
	switch string(key) {
	case "SigQ":
		c.skip()
		s.Sig.Queued = c.number(c.until('/', "queued"), 10, 64, "queued")
		s.Sig.QueueLimit = c.dec("limit")
	case "SigPnd":
		s.Sig.Pending = c.hex("mask")
	case "ShdPnd":
		s.Sig.SharedPending = c.hex("mask")
	case "SigBlk":
		s.Sig.Blocked = c.hex("mask")
	case "SigIgn":
		s.Sig.Ignored = c.hex("mask")
	case "SigCgt":
		s.Sig.Caught = c.hex("mask")
	default:
		return false
	}
	return true
}

func (s *Status) setCap(key []byte, c *cursor) bool {
	switch string(key) {
	case "CapInh":
		s.Cap.Inheritable = c.hex("mask")
	case "CapPrm":
		s.Cap.Permitted = c.hex("mask")
	case "CapEff":
		s.Cap.Effective = c.hex("mask")
	case "CapBnd":
		s.Cap.Bounding = c.hex("mask")
	case "CapAmb":
		s.Cap.Ambient = c.hex("mask")
	case "NoNewPrivs":
		s.NoNewPrivs = c.dec("flag") != 0
	case "Seccomp":
		s.Seccomp = c.int("mode")
	case "Seccomp_filters":
		s.SeccompFilters = c.int("count")
	default:
		return false
	}
	return true
}

func (s *Status) setOther(key []byte, c *cursor) bool {
	switch string(key) {
	case "Kthread":
		s.Kthread = c.dec("flag") != 0
	case "CoreDumping":
		s.CoreDumping = c.dec("flag") != 0
	case "THP_enabled":
		s.THPEnabled = c.dec("flag") != 0
	case "untag_mask":
		c.skip()
		c.literal("0x")
		s.UntagMask = c.hex("mask")
	case "Threads":
		s.Threads = c.int("count")
	case "voluntary_ctxt_switches":
		s.VoluntarySwitches = c.dec("count")
	case "nonvoluntary_ctxt_switches":
		s.NonvoluntarySwitches = c.dec("count")
	default:
		return false
	}
	return true
}
