// SPDX-License-Identifier: Apache-2.0

package procfs

import (
	"bytes"
	"errors"
	"fmt"
)

// TaskState is the letter of stat and status: R running, S sleeping, D disk
// sleep, T stopped, t tracing stop, X or x dead, Z zombie, P parked, I idle.
type TaskState byte

func (s TaskState) String() string { return string(rune(s)) }

// valid knows the letters of fs/proc/array.c, and the obsolete W and K.
func (s TaskState) valid() bool { return bytes.IndexByte([]byte("RSDTtXxZPIWK"), byte(s)) >= 0 }

// Stat is /proc/PID/stat (fs/proc/array.c, do_task_stat), with proc(5)'s names
// and order. Fields that need ptrace access read 0 (or 1 for the code
// addresses) without it. Ids are those of the proc mount's pid namespace.
type Stat struct {
	Pid   int
	Comm  string // unescaped; see Task.Comm
	State TaskState

	PPid, Pgrp, Session int
	TTYNr               int32 // controlling terminal, 0 for none: see TTY
	Tpgid               int   // foreground group of the terminal, -1 for none
	Flags               uint32

	MinFlt, CMinFlt, MajFlt, CMajFlt uint64
	Utime, Stime                     uint64 // clock ticks (1/100 s)
	CUtime, CStime                   int64
	Priority, Nice                   int64
	NumThreads                       int64
	ItRealValue                      int64
	StartTime                        uint64 // clock ticks since boot: with Pid, the task's identity
	VSize                            uint64 // bytes
	RSS                              int64  // pages
	RSSLim                           uint64 // bytes

	StartCode, EndCode, StartStack uint64
	KstkESP, KstkEIP               uint64
	Signal, Blocked                uint64 // obsolete, 31 bits: use Status
	SigIgnore, SigCatch            uint64
	Wchan, NSwap, CNSwap           uint64
	ExitSignal, Processor          int64
	RTPriority, Policy             uint32
	DelayacctBlkioTicks            uint64
	GuestTime                      uint64
	CGuestTime                     int64

	StartData, EndData, StartBrk uint64
	ArgStart, ArgEnd             uint64
	EnvStart, EnvEnd             uint64
	ExitCode                     int // as wait(2) reports it

	// Extra holds fields behind exit_code, which no kernel prints today.
	Extra []string
}

// TTY is the controlling terminal's device; the encoding is new_encode_dev's.
func (s *Stat) TTY() Dev {
	v := uint32(s.TTYNr)
	return Dev{Major: v >> 8 & 0xfff, Minor: v&0xff | v>>12&0xfff00}
}

// ParseStat reads /proc/PID/stat. The name may hold blanks and parentheses:
// it ends at the last ")".
func ParseStat(data []byte) (Stat, error) {
	var s Stat
	line, ok := bytes.CutSuffix(data, []byte{'\n'})
	if !ok {
		return s, parseError("stat", 1, data, errTruncated)
	}
	if err := s.parse(line); err != nil {
		return Stat{}, parseError("stat", 1, line, err)
	}
	return s, nil
}

func (s *Stat) parse(line []byte) error {
	open, closing := bytes.IndexByte(line, '('), bytes.LastIndexByte(line, ')')
	if open < 0 || closing < open {
		return errors.New("name is not in parentheses")
	}
	head := cursor{rest: line[:open]}
	s.Pid = head.int("pid")
	if err := head.end(); err != nil {
		return err
	}
	comm, err := unescapeComm(line[open+1 : closing])
	if err != nil {
		return err
	}
	s.Comm = comm
	c := cursor{rest: line[closing+1:]}
	if f := c.field("state"); len(f) == 1 {
		s.State = TaskState(f[0])
	}
	if !s.State.valid() {
		return fmt.Errorf("unknown state %q", byte(s.State))
	}
	s.parseIDs(&c)
	s.parseUsage(&c)
	s.parseRun(&c)
	s.parseLayout(&c)
	for c.skip(); c.err == nil && len(c.rest) > 0; c.skip() {
		s.Extra = append(s.Extra, string(c.field("extra")))
	}
	return c.err
}

func (s *Stat) parseIDs(c *cursor) {
	s.PPid = c.int("ppid")
	s.Pgrp = c.int("pgrp")
	s.Session = c.int("session")
	s.TTYNr = int32(c.int("tty_nr"))
	s.Tpgid = c.int("tpgid")
	s.Flags = c.dec32("flags")
}

func (s *Stat) parseUsage(c *cursor) {
	s.MinFlt = c.dec("minflt")
	s.CMinFlt = c.dec("cminflt")
	s.MajFlt = c.dec("majflt")
	s.CMajFlt = c.dec("cmajflt")
	s.Utime = c.dec("utime")
	s.Stime = c.dec("stime")
	s.CUtime = c.int64("cutime")
	s.CStime = c.int64("cstime")
	s.Priority = c.int64("priority")
	s.Nice = c.int64("nice")
	s.NumThreads = c.int64("num_threads")
	s.ItRealValue = c.int64("itrealvalue")
	s.StartTime = c.dec("starttime")
	s.VSize = c.dec("vsize")
	s.RSS = c.int64("rss")
	s.RSSLim = c.dec("rsslim")
}

func (s *Stat) parseRun(c *cursor) {
	s.StartCode = c.dec("startcode")
	s.EndCode = c.dec("endcode")
	s.StartStack = c.dec("startstack")
	s.KstkESP = c.dec("kstkesp")
	s.KstkEIP = c.dec("kstkeip")
	s.Signal = c.dec("signal")
	s.Blocked = c.dec("blocked")
	s.SigIgnore = c.dec("sigignore")
	s.SigCatch = c.dec("sigcatch")
	s.Wchan = c.dec("wchan")
	s.NSwap = c.dec("nswap")
	s.CNSwap = c.dec("cnswap")
	s.ExitSignal = c.int64("exit_signal")
	s.Processor = c.int64("processor")
	s.RTPriority = c.dec32("rt_priority")
	s.Policy = c.dec32("policy")
	s.DelayacctBlkioTicks = c.dec("delayacct_blkio_ticks")
	s.GuestTime = c.dec("guest_time")
	s.CGuestTime = c.int64("cguest_time")
}

func (s *Stat) parseLayout(c *cursor) {
	s.StartData = c.dec("start_data")
	s.EndData = c.dec("end_data")
	s.StartBrk = c.dec("start_brk")
	s.ArgStart = c.dec("arg_start")
	s.ArgEnd = c.dec("arg_end")
	s.EnvStart = c.dec("env_start")
	s.EnvEnd = c.dec("env_end")
	s.ExitCode = c.int("exit_code")
}

// unescapeComm undoes proc_task_name's escaping (fs/proc/array.c): only \n
// and \\ occur.
func unescapeComm(b []byte) (string, error) {
	if bytes.IndexByte(b, '\\') < 0 {
		return string(b), nil
	}
	out := make([]byte, 0, len(b))
	for i := 0; i < len(b); i++ {
		if b[i] != '\\' {
			out = append(out, b[i])
			continue
		}
		i++
		switch {
		case i < len(b) && b[i] == 'n':
			out = append(out, '\n')
		case i < len(b) && b[i] == '\\':
			out = append(out, '\\')
		default:
			return "", fmt.Errorf("name %q has a lone backslash", b)
		}
	}
	return string(out), nil
}
