// SPDX-License-Identifier: Apache-2.0

package faults

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/containerd/containerd/v2/contrib/seccomp"
	"github.com/containerd/containerd/v2/pkg/oci"
	specs "github.com/opencontainers/runtime-spec/specs-go"

	"github.com/io-mig/mig/integration/internal/daemon"
)

const everyCapability = "0x1ffffffffff"

// asked is an image that asks for more than it may have, with right checksums.
type asked struct {
	edits []string
	want  string // in the error
}

// beyond are refused whatever the spec of the restore allows.
var beyond = map[string]asked{
	"pages-outside":         {[]string{"memory/3!entity=0x10000"}, `outside of its mappings`},
	"pages-in-the-kernel":   {[]string{"memory/3!entity=0xffff800000000000"}, `memory`},
	"pages-unaligned":       {[]string{"memory/3!entity=0x10001"}, `memory`},
	"mapping-at-null":       {[]string{"memory/2.mapping[0].start=0"}, `mapping 0x0`},
	"mapping-in-the-kernel": {[]string{"memory/2.mapping[+].start=0xffffffff80000000", "memory/2.mapping[+].length=4096"}, `memory`},
	"mapping-endless":       {[]string{"memory/2.mapping[0].length=0x7fffffffffff000"}, `memory`},
	"mapping-path-up":       {[]string{"memory/2.mapping[0].path=/../../../../etc/shadow"}, `memory`},
	"mapping-path-relative": {[]string{"memory/2.mapping[0].path=etc/shadow"}, `memory`},
	"mapping-of-proc":       {[]string{"memory/2.mapping[0].path=/proc/1/mem"}, `mem`},
	"executable-up":         {[]string{"memory/1.exe=/../../bin/sh"}, `executable|exe`},
	"vdso-over-mappings":    {[]string{"memory/1.vdso_start=0x400000"}, `memory|vDSO`},
	"mappings-many":         {[]string{"memory/1.mappings=4294967295"}, `mappings`},

	"fd-huge":            {[]string{"file/1.slot[0].fd=4294967295"}, `descriptor 4294967295`},
	"fd-negative":        {[]string{"file/1.slot[0].fd=2147483648"}, `descriptor 2147483648`},
	"fd-twice":           {[]string{"file/1.slot[0].fd=3", "file/1.slot[1].fd=3"}, `twice`},
	"fd-of-nothing":      {[]string{"file/1.slot[0].description=777"}, `descriptor`},
	"file-path-up":       {[]string{"file/3.type=1", "file/3.path=/../../../etc/shadow"}, `/etc/shadow`},
	"file-path-relative": {[]string{"file/3.type=1", "file/3.path=etc/shadow"}, `not an absolute path`},
	"file-creates":       {[]string{"file/3.type=1", "file/3.path=/made", "file/3.flags=0x41"}, `/made.*no such file`},
	"file-device":        {[]string{"file/3.type=3", "file/3.path=/dev/mem", "file/3.mode=0x2180", "file/3.device=257"}, `device|/dev/mem`},
	"file-type":          {[]string{"file/3.type=99"}, `type 99`},
	"file-stdio":         {[]string{"file/3.type=6", "file/3.stdio=77"}, `standard stream 77`},
	"cwd-up":             {[]string{"file/2.cwd=/../../.."}, `\.\.`},
	"root-up":            {[]string{"file/2.root=/proc/1/root/../.."}, `\.\.`},
	"umask":              {[]string{"file/2.umask=99999"}, `umask`},

	"threads-many":      {[]string{"task/1.threads=4294967295"}, `threads`},
	"thread-twice":      {[]string{"task/2.thread[].tid=1"}, `thread`},
	"thread-negative":   {[]string{"task/2.thread[1].tid=-5"}, `thread`},
	"pid-of-another":    {[]string{"task/1.pid=77"}, `pid 77`},
	"process-of-nobody": {[]string{"task/1!process=4294967295"}, `process`},

	"registers-short":   {[]string{"cpu/3.thread[0].registers=abc"}, `cpu`},
	"registers-of-ring": {[]string{"cpu/3.thread[0].registers=hex:" + strings.Repeat("ff", 27*8)}, `cpu|register`},
	"xsave-short":       {[]string{"cpu/3.thread[0].xsave=abc"}, `cpu|xsave|XSAVE`},
	"xsave-beyond":      {[]string{"cpu/1.component[].offset=4294967295"}, `cpu|component|XSAVE`},

	"signal-unknown": {[]string{"signal/1.action[0].signal=4000000000"}, `signal`},
	"signal-pending": {[]string{"signal/1.pending[+]=abc"}, `signal`},

	"limits-raised": {[]string{"credential/1.limit[7].hard=0xffffffffffffffff"}, `RLIMIT_NOFILE`},
}

func TestHostileImages(t *testing.T) {
	h := startHost(t, daemon.V24)
	image := golden(t, h)
	for name, a := range beyond {
		t.Run(name, func(t *testing.T) {
			restoreRefused(t, h, forge(t, h, image, a.edits...), a.want)
		})
	}
	for _, e := range onePerKind(entries(t, image)) {
		name := strings.ReplaceAll(e.key, "/", "-")
		// What is no valid payload, and what is missing. Of pages nobody can
		// know how many there were, and a container that had no network of its own
		// has no record of one.
		t.Run("garbage-"+name, func(t *testing.T) {
			restoreRefused(t, h, forge(t, h, image, e.key+"!raw=\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff"), strings.Split(e.key, "/")[0])
		})
		if !slices.Contains([]string{"memory/3", "memory/4", "network/1"}, e.key) {
			t.Run("without-"+name, func(t *testing.T) {
				restoreRefused(t, h, forge(t, h, image, e.key+"!drop"), ``)
			})
		}
		t.Run("twice-"+name, func(t *testing.T) {
			v, err := h.restore(t, "twice", forge(t, h, image, e.key+"!twice"))
			if err == nil {
				// The format allows it: the later one holds.
				v.mustLive("after a restore of repeated records")
				v.remove()
				return
			}
			v.gone("a refused restore")
		})
	}
	noPanic(t, h)
}

// status fields that say what a process may do.
var powers = []string{"Uid", "Gid", "Groups", "CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb", "NoNewPrivs", "Seccomp", "Seccomp_filters"}

func (v *victim) powers() map[string]string {
	v.t.Helper()
	all := map[string]string{}
	for _, field := range powers {
		all[field] = v.procStatus(field)
	}
	return all
}

// The spec of a restore decides, not the image: whoever forges an image gets
// nothing that the spec would not give to a program started afresh.
func TestForgedPrivileges(t *testing.T) {
	h := startHost(t, daemon.V24)
	narrow := []oci.SpecOpts{
		caps("CAP_CHOWN", "CAP_NET_BIND_SERVICE"), seccomp.WithDefaultProfile(), oci.WithNewPrivileges,
		func(_ ctx, _ oci.Client, _ *containerInfo, s *specs.Spec) error {
			s.Process.NoNewPrivileges = true
			s.Process.Rlimits = []specs.POSIXRlimit{{Type: "RLIMIT_NOFILE", Soft: 512, Hard: 512}}
			return nil
		},
	}
	// What a fresh container of the spec may do.
	fresh := h.run(t, "fresh", 4, "", narrow...)
	want := fresh.powers()
	dir := t.TempDir() + "/image"
	if err := fresh.checkpoint(dir).Err(); err != nil {
		t.Fatal(err)
	}
	fresh.remove()
	if want["Seccomp"] != "2" || want["NoNewPrivs"] != "1" || want["CapBnd"] == "000001ffffffffff" {
		t.Fatalf("the spec is not narrow: %v", want)
	}

	for name, a := range map[string]asked{
		"effective":   {[]string{"credential/2.thread[].effective=" + everyCapability, "credential/2.thread[].permitted=" + everyCapability}, `CAP_SYS_ADMIN|beyond|allowed`},
		"bounding":    {[]string{"credential/2.thread[].bounding=" + everyCapability}, `bounding`},
		"inheritable": {[]string{"credential/2.thread[].inheritable=" + everyCapability}, `inheritable`},
		"ambient":     {[]string{"credential/2.thread[].ambient=" + everyCapability}, `ambient`},
		"uid":         {[]string{"credential/2.thread[].uid.effective=4242"}, `uid 4242`},
		"gid":         {[]string{"credential/2.thread[].gid.saved=4242"}, `gid 4242`},
		"group":       {[]string{"credential/2.thread[].group[+]=4242"}, `group 4242`},
		"one-thread":  {[]string{"credential/2.thread[1].uid.real=4242"}, `uid 4242`},
		"limits":      {[]string{"credential/1.limit[7].hard=100000"}, `RLIMIT_NOFILE`},
		"secure-bits": {[]string{"credential/2.thread[].secure_bits=0x2f"}, `secure bits`},
	} {
		t.Run("refused-"+name, func(t *testing.T) {
			restoreRefused(t, h, forge(t, h, dir, a.edits...), a.want, narrow...)
		})
	}
	for name, edits := range map[string][]string{
		"nothing":            nil,
		"no-seccomp":         {"credential/2.thread[].seccomp_mode=0", "credential/2.thread[].seccomp_filters=0"},
		"more-filters":       {"credential/2.thread[].seccomp_filters=30"},
		"new-privileges":     {"credential/2.thread[].no_new_privileges=false"},
		"fewer-capabilities": {"credential/2.thread[].effective=0", "credential/2.thread[].permitted=0"},
	} {
		t.Run("held-"+name, func(t *testing.T) {
			forged := dir
			if edits != nil {
				forged = forge(t, h, dir, edits...)
			}
			v, err := h.restore(t, "held", forged, narrow...)
			if err != nil {
				if name == "nothing" || name == "fewer-capabilities" {
					t.Error(err)
				}
				v.gone("a refused restore")
				return
			}
			v.mustLive("after a restore")
			got := v.powers()
			if name == "fewer-capabilities" {
				want := map[string]string{"CapPrm": "0000000000000000", "CapEff": "0000000000000000"}
				for field, value := range want {
					if got[field] != value {
						t.Errorf("%s is %s, want %s", field, got[field], value)
					}
				}
				v.remove()
				return
			}
			if fmt.Sprint(got) != fmt.Sprint(want) {
				t.Errorf("the restored process may\n%v\na fresh one\n%v", got, want)
			}
			v.remove()
		})
	}
	noPanic(t, h)
}

// An honest image of a container with more rights than the spec of the restore.
func TestWiderImage(t *testing.T) {
	h := startHost(t, daemon.V24)
	image := golden(t, h) // root with containerd's default capabilities
	restoreRefused(t, h, image, `bounding set with .*CAP_DAC_OVERRIDE.*allowed are CAP_CHOWN`, caps("CAP_CHOWN"))
	// A user's program has no capabilities, whatever the spec's sets say: execve(2)
	// takes them from it.
	restoreRefused(t, h, image, `permitted set with .*CAP_SETUID.*allowed are none`, oci.WithUserID(1000))
	none := forge(t, h, image, "credential/2.thread[].permitted=0", "credential/2.thread[].effective=0")
	restoreRefused(t, h, none, `uid 0; allowed is 1000`, oci.WithUserID(1000))
	noPanic(t, h)
}
