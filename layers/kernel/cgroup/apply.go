// SPDX-License-Identifier: Apache-2.0

package cgroup

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/io-mig/mig/spec/state"
)

// setOne makes one setting of the cgroup at dir, which lies in parent.
func setOne(dir, parent string, s *state.CgroupSetting) error {
	known, _, _ := settingOf(s.Name)
	value := string(s.Value)
	text, err := os.ReadFile(filepath.Join(dir, s.Name))
	if err != nil {
		return fmt.Errorf("this host's kernel has no such setting: %w", err)
	}
	if now, _ := known.value(string(text), ""); now == value {
		return nil
	}
	if s.Name == "cpuset.cpus" || s.Name == "cpuset.mems" {
		if value, err = here(parent, s.Name, value); err != nil {
			return err
		}
	}
	return write(dir, s.Name, value)
}

// here is what this host has of a list of processors or nodes: those that the
// parent may use, all of them if it has none of the list. The affinities of tasks
// are narrowed in the same way.
func here(parent, name, value string) (string, error) {
	text, err := os.ReadFile(filepath.Join(parent, name+".effective"))
	if os.IsNotExist(err) { // version 1
		text, err = os.ReadFile(filepath.Join(parent, name))
	}
	if err != nil {
		return "", err
	}
	all := strings.TrimSpace(string(text))
	some, err := parseSet(value)
	if err != nil {
		return "", err
	}
	has, err := parseSet(all)
	if err != nil {
		return "", err
	}
	some = slices.DeleteFunc(some, func(n int) bool { return !slices.Contains(has, n) })
	if len(some) == 0 {
		return all, nil
	}
	return formatSet(some), nil
}

// maxSet is more than a kernel has processors.
const maxSet = 1 << 13

// parseSet reads a list as "0-3,8" (cpuset(7), "List format").
func parseSet(text string) ([]int, error) {
	var out []int
	for part := range strings.SplitSeq(text, ",") {
		if part == "" {
			continue
		}
		low, high, ranged := strings.Cut(part, "-")
		if !ranged {
			high = low
		}
		from, err1 := strconv.Atoi(low)
		to, err2 := strconv.Atoi(high)
		if err1 != nil || err2 != nil || from < 0 || to < from || to > maxSet || len(out) > maxSet {
			return nil, fmt.Errorf("%w: the list %q", errImage, text)
		}
		for n := from; n <= to; n++ {
			out = append(out, n)
		}
	}
	return out, nil
}

func formatSet(set []int) string {
	text := make([]string, len(set))
	for i, n := range set {
		text[i] = strconv.Itoa(n)
	}
	return strings.Join(text, ",")
}

// setDevices makes what a new cgroup may do with devices, all that its parent may,
// less: the list. The kernel adds nothing that the parent has not.
func setDevices(dir, value string) error {
	now, err := os.ReadFile(filepath.Join(dir, "devices.list"))
	if err != nil {
		return err
	}
	want := list(strings.TrimSpace(value))
	if slices.Equal(want, list(strings.TrimSpace(string(now)))) {
		return nil
	}
	if err := write(dir, "devices.deny", "a"); err != nil {
		return err
	}
	for _, line := range want {
		if line = strings.TrimSpace(line); line == "" {
			continue
		}
		if err := write(dir, "devices.allow", line); err != nil {
			return fmt.Errorf("device %q: %w", line, err)
		}
	}
	return nil
}
