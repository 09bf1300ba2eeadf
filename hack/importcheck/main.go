// SPDX-License-Identifier: Apache-2.0

// Command importcheck fails when a package of this module imports what the
// layers forbid. It parses every Go file below the directory it is given,
// whatever its build tags, so a rule cannot be escaped by a tag.
//
//	go run ./hack/importcheck .
package main

import (
	"fmt"
	"os"
)

func main() {
	root := "."
	if len(os.Args) > 1 {
		root = os.Args[1]
	}
	findings, err := check(root, rules)
	if err != nil {
		fmt.Fprintln(os.Stderr, "importcheck:", err)
		os.Exit(2)
	}
	for _, finding := range findings {
		fmt.Println(finding)
	}
	if len(findings) > 0 {
		os.Exit(1)
	}
}
