// SPDX-License-Identifier: Apache-2.0

package image

import (
	"fmt"
	"math/bits"
	"strings"
	"time"
)

// Names of an image's files. Pages files are numbered from 1.
const (
	ManifestName = "mig.manifest"
	StateName    = "mig.state"
	pagesPrefix  = "mig.pages-"
)

// PagesName is the name of a lane's file.
func PagesName(lane int) string { return fmt.Sprintf("%s%d", pagesPrefix, lane) }

// Valid checks the manifest's limits and the form of its fields.
func (m *Manifest) Valid() error {
	for _, f := range []struct {
		name, value string
		limit       int
	}{
		{"tool", m.Tool, maxString}, {"created", m.Created, maxString}, {"architecture", m.Architecture, maxString},
		{"kernel", m.Kernel, maxString}, {"container", m.Container, maxString}, {"encryption", m.Encryption, maxEncryption},
	} {
		if err := plain(f.name, f.value, f.limit); err != nil {
			return err
		}
	}
	if t, err := m.Time(); err != nil || t.UTC().Format(time.RFC3339) != m.Created {
		return fmt.Errorf("%w: manifest: created %q is not of the form 2006-01-02T15:04:05Z", ErrFormat, m.Created)
	}
	if m.Architecture == "" {
		return fmt.Errorf("%w: manifest: no architecture", ErrFormat)
	}
	if bits.OnesCount32(m.PageSize) != 1 {
		return fmt.Errorf("%w: manifest: page size %d is no power of two", ErrFormat, m.PageSize)
	}
	if len(m.CPUFeatures) > maxCPUFeatures {
		return fmt.Errorf("%w: manifest: %d CPU features, the limit is %d", ErrFormat, len(m.CPUFeatures), maxCPUFeatures)
	}
	for _, f := range m.CPUFeatures {
		if err := plain("cpu_features", f, 64); err != nil || f == "" {
			return fmt.Errorf("%w: manifest: CPU feature %q", ErrFormat, f)
		}
	}
	if err := validSubsystems(m.Subsystems); err != nil {
		return err
	}
	return validFiles(m.Files)
}

// plain accepts what JSON never escapes, so that there is one encoding.
func plain(field, s string, limit int) error {
	if len(s) > limit {
		return fmt.Errorf("%w: manifest: %s has %d bytes, the limit is %d", ErrFormat, field, len(s), limit)
	}
	for i := range len(s) {
		if s[i] < ' ' || s[i] > '~' || strings.IndexByte(`"\<>&`, s[i]) >= 0 {
			return fmt.Errorf("%w: manifest: byte %#02x in %s", ErrFormat, s[i], field)
		}
	}
	return nil
}

func validSubsystems(list []Subsystem) error {
	if len(list) > maxSubsystems {
		return fmt.Errorf("%w: manifest: %d subsystems, the limit is %d", ErrFormat, len(list), maxSubsystems)
	}
	seen := map[string]bool{}
	for _, s := range list {
		if err := validName(s.Name); err != nil {
			return fmt.Errorf("manifest: %w", err)
		}
		if seen[s.Name] || s.Version == 0 {
			return fmt.Errorf("%w: manifest: subsystem %q twice or with version 0", ErrFormat, s.Name)
		}
		seen[s.Name] = true
	}
	return nil
}

// validFiles accepts the state file followed by the lanes in order, or no file
// at all, for a manifest that has not come to a medium with files.
func validFiles(list []File) error {
	if len(list) > 1+MaxLanes {
		return fmt.Errorf("%w: manifest: %d files, the limit is %d", ErrFormat, len(list), 1+MaxLanes)
	}
	for i, f := range list {
		want, least := StateName, int64(FileHeaderSize+RecordHeaderSize)
		if i > 0 {
			want, least = PagesName(i), PageAlign
		}
		if f.Name != want {
			return fmt.Errorf("%w: manifest: file %q where %s belongs", ErrFormat, f.Name, want)
		}
		if f.Size < least || f.Size > maxFile || f.Bytes > uint64(f.Size) {
			return fmt.Errorf("%w: manifest: %s with %d bytes and %d bytes of payload", ErrFormat, f.Name, f.Size, f.Bytes)
		}
	}
	return nil
}
