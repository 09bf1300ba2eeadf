// SPDX-License-Identifier: Apache-2.0

package stdio

import (
	"fmt"
	"net/url"
	"strings"
)

// URIs are what containerd asks for, as in the task API. An empty one means
// /dev/null.
type URIs struct {
	Stdin, Stdout, Stderr string
	Terminal              bool
}

// kind is what stands behind a URI.
type kind int

const (
	kindNone     kind = iota
	kindPath          // a FIFO, or a file that exists
	kindFile          // file://, made if it is missing
	kindBinary        // binary://, ready when the descriptor is closed
	kindBinaryV2      // binary-v2://, ready when a byte was written
)

// target is a decoded URI.
type target struct {
	kind kind
	path string
	args []string // of a logging program
}

// parseTarget decodes the URI of an output. Paths are taken as they are: a
// FIFO's name may hold characters that are special in URLs.
func parseTarget(uri string) (target, error) {
	if uri == "" {
		return target{kind: kindNone}, nil
	}
	scheme, rest, ok := strings.Cut(uri, "://")
	if !ok {
		return target{kind: kindPath, path: uri}, nil
	}
	switch scheme {
	case "fifo":
		return target{kind: kindPath, path: rest}, nil
	case "file", "binary", "binary-v2":
	default:
		return target{}, fmt.Errorf("stdio %s: unknown scheme %q (file, binary, binary-v2, or a path)", uri, scheme)
	}
	u, err := url.Parse(uri)
	if err != nil {
		return target{}, fmt.Errorf("stdio %s: %w", uri, err)
	}
	if u.Path == "" {
		return target{}, fmt.Errorf("stdio %s: the path is missing; use %s:///absolute/path", uri, scheme)
	}
	t := target{kind: kindFile, path: u.Path}
	if scheme == "file" {
		return t, nil
	}
	t.kind = kindBinary
	if scheme == "binary-v2" {
		t.kind = kindBinaryV2
	}
	t.args, err = queryArgs(u.RawQuery)
	if err != nil {
		return target{}, fmt.Errorf("stdio %s: %w", uri, err)
	}
	return t, nil
}

// queryArgs turns ?key=value&flag= into the arguments key value flag "", in the
// order in which they are written; of a repeated key the first counts.
func queryArgs(query string) ([]string, error) {
	var args []string
	seen := map[string]bool{}
	for part := range strings.SplitSeq(query, "&") {
		if part == "" {
			continue
		}
		key, value, _ := strings.Cut(part, "=")
		key, err := url.QueryUnescape(key)
		if err != nil {
			return nil, err
		}
		if value, err = url.QueryUnescape(value); err != nil {
			return nil, err
		}
		if !seen[key] {
			seen[key] = true
			args = append(args, key, value)
		}
	}
	return args, nil
}
