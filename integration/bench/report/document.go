// SPDX-License-Identifier: Apache-2.0

package report

import (
	"fmt"
	"os"
	"strings"
)

// The lines between which a document has the results.
const (
	resultsBegin = "<!-- results: begin, written by mig-bench -document -->"
	resultsEnd   = "<!-- results: end -->"
)

// Into replaces the results in a document, a Markdown file that has the two
// marking lines. What people wrote around them stays.
func (r *Report) Into(path string) error {
	raw, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	text, err := replaced(string(raw), r.Markdown())
	if err != nil {
		return fmt.Errorf("%s: %w", path, err)
	}
	return os.WriteFile(path, []byte(text), 0o644)
}

func replaced(text, results string) (string, error) {
	before, rest, ok := strings.Cut(text, resultsBegin)
	_, after, ended := strings.Cut(rest, resultsEnd)
	if !ok || !ended {
		return "", fmt.Errorf("the lines %q and %q are not there, in this order", resultsBegin, resultsEnd)
	}
	return before + resultsBegin + "\n\n" + strings.TrimSpace(results) + "\n\n" + resultsEnd + after, nil
}
