// SPDX-License-Identifier: Apache-2.0

package host

import (
	"fmt"
	"net/url"
	"os"
	"path/filepath"
	"strings"

	"github.com/containerd/containerd/v2/pkg/cio"

	"github.com/io-mig/mig/layers/request/peer"
)

// arrive decides where the streams of a task lead that is moved here or restored.
// Log URIs go where they say. A FIFO leads to a client that stays behind: nothing
// takes its place, and the container sees the end of its input and writes to
// nobody, as warned of.
func arrive(s peer.Streams) (cfg cio.Config, found []peer.Mismatch, warnings []string) {
	cfg.Terminal = s.Terminal
	var clients []string // streams that lead to one
	for _, stream := range []struct {
		name, uri string
		to        *string
	}{{"standard input", s.Stdin, &cfg.Stdin}, {"standard output", s.Stdout, &cfg.Stdout}, {"standard error", s.Stderr, &cfg.Stderr}} {
		uri := stream.uri
		if s.LogURI != "" && stream.to != &cfg.Stdin && !(s.Terminal && stream.to == &cfg.Stderr) {
			uri = s.LogURI
		}
		if uri == "" {
			continue
		}
		u, err := url.Parse(uri)
		if err != nil {
			found = append(found, peer.Mismatch{What: stream.name, Why: err.Error()})
			continue
		}
		switch u.Scheme {
		case "", "fifo":
			clients = append(clients, fmt.Sprintf("%s (%s)", stream.name, uri))
			continue
		case "file":
			// The shim makes the file, and directories that are missing.
			if !filepath.IsAbs(u.Path) {
				found = append(found, peer.Mismatch{What: stream.name, Why: fmt.Sprintf("%s has no absolute path", uri)})
			}
		case "binary", "binary-v2":
			if st, err := os.Stat(u.Path); err != nil || st.IsDir() || st.Mode()&0o111 == 0 {
				found = append(found, peer.Mismatch{What: stream.name, Why: fmt.Sprintf("there is no logger %s", u.Path), Remedy: "install it there, or --log-uri names another log"})
			}
		default:
			found = append(found, peer.Mismatch{What: stream.name, Why: fmt.Sprintf("%s is no log that the shim knows", uri)})
		}
		*stream.to = uri
	}
	if len(clients) > 0 {
		warnings = append(warnings, strings.Join(clients, ", ")+": these lead to a client, and will lead nowhere (--log-uri names a log for the outputs)")
	}
	return cfg, found, warnings
}

// ValidLogURI checks what a person gives for the outputs of a container; empty is
// nothing. Whether a logger is there is the other host's to say.
func ValidLogURI(uri string) error {
	if uri == "" {
		return nil
	}
	u, err := url.Parse(uri)
	if err != nil {
		return fmt.Errorf("--log-uri: %w", err)
	}
	switch u.Scheme {
	case "file", "binary", "binary-v2":
		if filepath.IsAbs(u.Path) && u.Host == "" {
			return nil
		}
	}
	return fmt.Errorf("--log-uri %q: want file:///PATH or binary:///PATH, with an absolute path", uri)
}

// streams gives containerd's client the streams of a task without opening any:
// the shim does.
type streams struct{ config cio.Config }

func (s streams) creator(string) (cio.IO, error) { return s, nil }

func (s streams) Config() cio.Config { return s.config }
func (streams) Cancel()              {}
func (streams) Wait()                {}
func (streams) Close() error         { return nil }
