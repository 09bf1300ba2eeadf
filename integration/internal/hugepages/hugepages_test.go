// SPDX-License-Identifier: Apache-2.0

package hugepages

import (
	"os"
	"slices"
	"testing"
)

// What a killed test has added goes back with the next one, and what others have stays.
func TestLoansOfTheDeadGoBack(t *testing.T) {
	start, err := startOf(os.Getpid())
	if err != nil {
		t.Fatal(err)
	}
	mine := loan{os.Getpid(), start, 4}
	list, err := parse([]byte(mine.line() + "1 1 8\n"))
	if err != nil || !slices.Equal(list, []loan{mine, {1, "1", 8}}) {
		t.Fatalf("%v, %v", list, err)
	}
	if got := living(list); !slices.Equal(got, []loan{mine}) || sum(got) != 4 {
		t.Errorf("living are %v", got)
	}
	if list, err := parse([]byte("1 2\n")); err == nil {
		t.Errorf("half a line is %v", list)
	}
}
