// SPDX-License-Identifier: Apache-2.0

package engine

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"

	"github.com/io-mig/mig/layers/kernel/procfs"
)

// userFeatures are the flags of /proc/cpuinfo (arch/x86/include/asm/cpufeatures.h)
// that stand for instructions which a program may have found by CPUID and may
// use after a restore. Flags of virtualisation, power management and the
// kernel's own use do not matter to it.
var userFeatures = strings.Fields(`
	fpu cx8 cmov mmx fxsr sse sse2 pni pclmulqdq ssse3 fma cx16 sse4_1 sse4_2 movbe popcnt aes
	xsave avx f16c rdrand lahf_lm abm sse4a misalignsse 3dnowprefetch xop lwp fma4 tbm
	fsgsbase bmi1 hle avx2 bmi2 erms rtm avx512f avx512dq rdseed adx avx512ifma clflushopt clwb
	avx512pf avx512er avx512cd sha_ni avx512bw avx512vl xsaveopt xsavec xgetbv1
	avx_vnni avx512_bf16 avx512vbmi umip pku ospke waitpkg avx512_vbmi2 gfni vaes vpclmulqdq
	avx512_vnni avx512_bitalg avx512_vpopcntdq rdpid cldemote movdiri movdir64b enqcmd fsrm
	avx512_vp2intersect serialize amx_bf16 avx512_fp16 amx_tile amx_int8 amx_fp16 amx_complex
	avx_ifma avx_vnni_int8 avx_ne_convert avx_vnni_int16 sha512 sm3 sm4 cmpccxadd prefetchiti apx
	rdtscp nx lm syscall clzero wbnoinvd`)

// cpuFeatures are this machine's features that a program can use, sorted.
// Where the CPUs differ, only what all of them have counts.
var cpuFeatures = sync.OnceValues(readCPUFeatures)

func readCPUFeatures() ([]string, error) {
	cpus, err := procfs.Host().CPUInfo()
	if err != nil {
		return nil, fmt.Errorf("read the CPU's features: %w", err)
	}
	if len(cpus) == 0 {
		return nil, errors.New("/proc/cpuinfo names no CPU")
	}
	var out []string
	for _, f := range userFeatures {
		everywhere := true
		for _, c := range cpus {
			everywhere = everywhere && slices.Contains(c.Flags, f)
		}
		if everywhere {
			out = append(out, f)
		}
	}
	slices.Sort(out)
	return out, nil
}

// MissingFeaturesError names what an image's programs may use and this CPU
// does not have.
type MissingFeaturesError struct{ Missing []string }

func (e *MissingFeaturesError) Error() string {
	return fmt.Sprintf("this CPU lacks features that the image's programs may use: %s: restore on a machine with them", strings.Join(e.Missing, " "))
}

// checkFeatures compares the features an image needs with those that are here.
func checkFeatures(needed, here []string) error {
	var missing []string
	for _, f := range needed {
		if !slices.Contains(here, f) {
			missing = append(missing, f)
		}
	}
	if len(missing) > 0 {
		return &MissingFeaturesError{missing}
	}
	return nil
}
