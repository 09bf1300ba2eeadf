// SPDX-License-Identifier: Apache-2.0

package socket

import (
	"fmt"
	"testing"
)

func TestGroupLists(t *testing.T) {
	four, err := parseIGMP("Idx\tDevice    : Count Querier\tGroup    Users Timer\tReporter\n" +
		"1\tlo        :     2      V3\n\t\t\t\t030201EF     1 0:00000000\t\t0\n\t\t\t\t010000E0     1 0:00000000\t\t0\n" +
		"4\teth0      :     1      V3\n\t\t\t\t010000E0     1 0:00000000\t\t0\n")
	if err != nil || show(four) != "1 239.1.2.3, 1 224.0.0.1, 4 224.0.0.1, " {
		t.Errorf("igmp: %v, %v", four, err)
	}
	six, err := parseIGMP6("1    lo              ff050000000000000000000000000077     1 00000004 0\n")
	if err != nil || show(six) != "1 ff05::77, " {
		t.Errorf("igmp6: %v, %v", six, err)
	}
	for _, bad := range []string{"1 lo", "x lo ff050000000000000000000000000077", "1 lo ff05"} {
		if _, err := parseIGMP6(bad); err == nil {
			t.Errorf("%q is taken", bad)
		}
	}
	for _, bad := range []string{"Idx\nx\tlo", "Idx\n1\tlo\n\t\tzz"} {
		if _, err := parseIGMP(bad); err == nil {
			t.Errorf("%q is taken", bad)
		}
	}
}

func show(list []group) (s string) {
	for _, g := range list {
		s += fmt.Sprintf("%d %s, ", g.index, g.address)
	}
	return s
}
