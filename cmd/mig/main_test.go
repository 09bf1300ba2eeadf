// SPDX-License-Identifier: Apache-2.0

package main

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/rogpeppe/go-internal/testscript"
)

// TestMain makes this test binary the program mig for the scripts.
func TestMain(m *testing.M) {
	testscript.Main(m, map[string]func(){"mig": main})
}

// TestScripts runs testdata/*.txtar: what people type and what they see. $IMAGE
// is a golden image of spec/image.
func TestScripts(t *testing.T) {
	image, err := filepath.Abs("../../spec/image/testdata")
	if err != nil {
		t.Fatal(err)
	}
	testscript.Run(t, testscript.Params{
		Dir: "testdata",
		Setup: func(e *testscript.Env) error {
			e.Setenv("IMAGE", image)
			e.Setenv("TZ", "UTC")
			e.Setenv("ME", itoa(os.Getpid()))
			return nil
		},
	})
}
