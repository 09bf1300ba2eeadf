// SPDX-License-Identifier: Apache-2.0

package image

import (
	"bytes"
	"fmt"
	"os/exec"
	"regexp"
	"strings"
)

// libraryLine matches "libc.so.6 => /lib/libc.so.6 (0x...)" and, for the
// loader, "/lib64/ld-linux-x86-64.so.2 (0x...)".
var libraryLine = regexp.MustCompile(`^\s*(?:\S+ => )?(/\S+) \(0x[0-9a-f]+\)$`)

// libraries returns the paths of the shared libraries that a program of this
// machine loads, the loader included; nothing for a static program. See
// ldd(1): it runs the loader, so it is for programs of the distribution only.
func libraries(program string) ([]string, error) {
	out, err := exec.Command("ldd", program).CombinedOutput()
	if bytes.Contains(out, []byte("not a dynamic executable")) || bytes.Contains(out, []byte("statically linked")) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("ldd %s: %w: %s", program, err, out)
	}
	var paths []string
	for line := range strings.Lines(string(out)) {
		if strings.Contains(line, "not found") {
			return nil, fmt.Errorf("ldd %s: %s", program, strings.TrimSpace(line))
		}
		if match := libraryLine.FindStringSubmatch(strings.TrimRight(line, "\n")); match != nil {
			paths = append(paths, match[1])
		}
	}
	return paths, nil
}
