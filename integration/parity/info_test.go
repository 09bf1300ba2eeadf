// SPDX-License-Identifier: Apache-2.0

package parity

import (
	"encoding/json"
	"os"

	specs "github.com/opencontainers/runtime-spec/specs-go"
)

// containerInfo is what `ctr containers info` prints, the part that is
// compared: times differ, and ctr fills Runtime.Options by the runtime's name.
type containerInfo struct {
	ID          string
	Labels      map[string]string
	Image       string
	Snapshotter string
	SnapshotKey string
	Spec        json.RawMessage
}

func (p *probe) info() containerInfo {
	p.t.Helper()
	var info containerInfo
	result := p.must("containers", "info", p.id)
	if err := json.Unmarshal([]byte(result.Stdout), &info); err != nil {
		p.t.Errorf("containers info: %v", err)
	}
	return info
}

// withSpec writes a configuration for `ctr run --config`: the spec that ctr
// makes for an image, changed by edit. It returns the flags to add.
func (p *probe) withSpec(edit func(*specs.Spec)) []string {
	p.t.Helper()
	var spec specs.Spec
	result := p.must("oci", "spec")
	if err := json.Unmarshal([]byte(result.Stdout), &spec); err != nil {
		p.t.Fatal(err)
	}
	spec.Root = &specs.Root{Path: "rootfs"}
	spec.Linux.CgroupsPath = "/" + p.host.Namespace + "/" + p.id
	edit(&spec)
	content, err := json.Marshal(spec)
	if err != nil {
		p.t.Fatal(err)
	}
	return []string{"--config", p.file("config.json", string(content), os.FileMode(0o644))}
}
