// SPDX-License-Identifier: Apache-2.0

package runtime

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"github.com/opencontainers/runc/libcontainer/configs"
	"github.com/opencontainers/runtime-spec/specs-go"
)

// recordFile is ours in the state directory. libcontainer writes its state.json
// only when the init is nearly done, after the createRuntime hooks: without a
// file of our own, a shim killed before that would leave a cgroup that nobody
// can find and hooks that nobody undoes.
const recordFile = "mig.json"

// record is what Load needs beyond libcontainer's state, or instead of it.
type record struct {
	Bundle  string         `json:"bundle"`
	Process *specs.Process `json:"process"`
	Frame   bool           `json:"frame,omitempty"`
	Streams [3]Stream      `json:"streams"`
	Config  configs.Config `json:"config"`
}

func recordOf(o CreateOptions, config *configs.Config) *record {
	return &record{Bundle: o.Bundle, Process: o.Spec.Process, Frame: o.Frame != nil, Streams: streamsOf(o.Stdio), Config: *config}
}

// writeRecord writes by rename, so that a reader sees all of it or nothing.
func writeRecord(dir string, r *record) error {
	data, err := json.Marshal(r)
	if err != nil {
		return fmt.Errorf("state record: %w", err)
	}
	path := filepath.Join(dir, recordFile)
	if err := os.WriteFile(path+".new", data, 0o600); err != nil {
		return fmt.Errorf("state record: %w", err)
	}
	if err := os.Rename(path+".new", path); err != nil {
		return fmt.Errorf("state record: %w", err)
	}
	return nil
}

func readRecord(dir string) (*record, error) {
	path := filepath.Join(dir, recordFile)
	data, err := os.ReadFile(path)
	if errors.Is(err, os.ErrNotExist) {
		return nil, ErrNotExist
	}
	if err != nil {
		return nil, err
	}
	var r record
	if err := json.Unmarshal(data, &r); err != nil {
		return nil, fmt.Errorf("state record %s: %w", path, err)
	}
	return &r, nil
}
