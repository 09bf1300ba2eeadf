// SPDX-License-Identifier: Apache-2.0

package report

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
)

// marks are the lines between which a document has a report of that name.
func marks(name string) (begin, end string) {
	return "<!-- " + name + ": begin, written by mig-bench -document -->", "<!-- " + name + ": end -->"
}

// Into replaces the report in a document, a Markdown file that has the two
// marking lines. What people wrote around them stays. The pictures go into a
// directory beside the document, of its name.
func (r *Report) Into(path string) error {
	raw, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	pictures := strings.TrimSuffix(filepath.Base(path), filepath.Ext(path))
	text, err := replaced(string(raw), r.Name, r.Markdown(pictures))
	if err != nil {
		return fmt.Errorf("%s: %w", path, err)
	}
	if err := r.savePlots(filepath.Join(filepath.Dir(path), pictures)); err != nil {
		return err
	}
	return os.WriteFile(path, []byte(text), 0o644)
}

func replaced(text, name, results string) (string, error) {
	begin, end := marks(name)
	before, rest, ok := strings.Cut(text, begin)
	_, after, ended := strings.Cut(rest, end)
	if !ok || !ended {
		return "", fmt.Errorf("the lines %q and %q are not there, in this order", begin, end)
	}
	return before + begin + "\n\n" + strings.TrimSpace(results) + "\n\n" + end + after, nil
}
