// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"
	"go/parser"
	"go/token"
	"io/fs"
	"path"
	"path/filepath"
	"strconv"
	"strings"
)

// check returns one line for each import below root that rules forbid, in the
// order of the files. It fails on a file that is not Go.
func check(root string, rules []rule) ([]string, error) {
	var findings []string
	err := filepath.WalkDir(root, func(name string, entry fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		rel, err := filepath.Rel(root, name)
		if err != nil {
			return err
		}
		if entry.IsDir() {
			return skipDir(rel, entry.Name())
		}
		if !strings.HasSuffix(name, ".go") {
			return nil
		}
		found, err := checkFile(name, filepath.ToSlash(rel), rules)
		findings = append(findings, found...)
		return err
	})
	return findings, err
}

// skipDir leaves out other modules, test data and hidden directories.
func skipDir(rel, name string) error {
	if rel == "integration" || name == "testdata" || (strings.HasPrefix(name, ".") && rel != ".") {
		return filepath.SkipDir
	}
	return nil
}

func checkFile(name, rel string, rules []rule) ([]string, error) {
	dir := path.Dir(rel)
	r, ok := ruleFor(dir, rules)
	if !ok {
		return nil, nil
	}
	fset := token.NewFileSet()
	file, err := parser.ParseFile(fset, name, nil, parser.ImportsOnly)
	if err != nil {
		return nil, err
	}
	var findings []string
	test := strings.HasSuffix(name, "_test.go")
	for _, spec := range file.Imports {
		imported, err := strconv.Unquote(spec.Path.Value)
		if err != nil {
			return nil, fmt.Errorf("%s: import %s: %w", name, spec.Path.Value, err)
		}
		if why := forbidden(r, dir, imported, test); why != "" {
			findings = append(findings, fmt.Sprintf("%s:%d: %s", rel, fset.Position(spec.Pos()).Line, why))
		}
	}
	return findings, nil
}

// ruleFor returns the rule with the longest directory that takes in dir. A
// rule for exactly dir beats one for everything below it.
func ruleFor(dir string, rules []rule) (best rule, ok bool) {
	for _, r := range rules {
		if !covers(r.dir, dir) {
			continue
		}
		longer := len(strings.TrimSuffix(r.dir, "/...")) > len(strings.TrimSuffix(best.dir, "/..."))
		if !ok || longer || r.dir == dir {
			best, ok = r, true
		}
	}
	return best, ok
}

// covers reports whether pattern, a path with or without "/..." at its end,
// takes in name.
func covers(pattern, name string) bool {
	below, wide := strings.CutSuffix(pattern, "/...")
	return name == below || wide && strings.HasPrefix(name, below+"/")
}

// forbidden says why a package in dir must not import, or "" where it may.
func forbidden(r rule, dir, imported string, test bool) string {
	local, ours := strings.CutPrefix(imported, module)
	if !ours {
		for _, pattern := range r.deny {
			if covers(pattern, imported) {
				return fmt.Sprintf("%s must not import %s (rule %s)", dir, imported, r.dir)
			}
		}
		return ""
	}
	if local == dir || strings.HasPrefix(local, dir+"/internal/") {
		return ""
	}
	if covers("cmd/...", local) {
		return fmt.Sprintf("%s must not import %s: nothing imports cmd", dir, local)
	}
	if test {
		return ""
	}
	for _, pattern := range r.allow {
		if covers(pattern, local) {
			return ""
		}
	}
	return fmt.Sprintf("%s must not import %s: it may import %s (rule %s)", dir, local, strings.Join(r.allow, ", "), r.dir)
}
