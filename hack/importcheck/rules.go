// SPDX-License-Identifier: Apache-2.0

package main

// module is the path that turns an import into a directory of this tree.
const module = "github.com/io-mig/mig/"

// rule says what the packages below one directory may import. Directories
// are slash-separated and end in "/..." to take in everything below. Of
// several rules that fit a package the longest directory wins. Directories
// without a rule (hack) are free.
type rule struct {
	dir string
	// allow lists the directories of this module that may be imported,
	// beside the package's own. Test files are held to deny only: a test
	// may put a fake of any layer beside what it tests.
	allow []string
	// deny lists import paths of other modules that are forbidden, tests
	// included; a trailing "/..." takes in everything below.
	deny []string
}

const (
	containerd   = "github.com/containerd/containerd/v2/..."
	containerAPI = "github.com/containerd/containerd/api/..."
	libcontainer = "github.com/opencontainers/runc/..."
)

// rules are the arrows of the architecture: cmd -> shim -> runtime and
// layers/request -> layers/control -> spec; layers/kernel and layers/medium
// -> spec. Nothing may import shim but cmd, and nothing at all cmd.
var rules = []rule{
	{dir: "cmd/...", allow: []string{"shim/...", "runtime/...", "layers/...", "spec/..."}},
	// The one place where the shim meets the engine's side: it makes the frame's
	// program and looks at an image before anything is created.
	{dir: "shim/migrate", allow: []string{"shim/...", "runtime/...", "layers/request/...", "layers/control/handover", "layers/engine/names", "layers/kernel/tracer", "layers/kernel/tcprepair", "layers/medium/directory", "spec/..."}},
	{dir: "shim/...", allow: []string{"shim/...", "runtime/...", "layers/request/...", "layers/control/...", "spec/..."}},
	{dir: "runtime/...", allow: []string{"runtime/...", "spec/..."}, deny: []string{containerd, containerAPI}},

	// The entry wires the hub to the managers; the hub knows only the
	// interfaces that it declares itself.
	{dir: "layers/request/...", allow: []string{"layers/request/...", "layers/control/...", "layers/kernel", "layers/medium", "spec/..."},
		deny: []string{containerd, containerAPI, libcontainer}},
	// The test driver stands in for control.
	{dir: "layers/kernel/kerneltest", allow: []string{"layers/kernel/...", "layers/control", "layers/medium", "layers/medium/pipe", "spec/..."}, deny: []string{containerd, containerAPI, libcontainer}},
	// The engine process puts the layers together.
	{dir: "layers/engine/...", allow: []string{"layers/...", "spec/..."}, deny: []string{containerd, containerAPI, libcontainer}},
	{dir: "layers/control/...", allow: []string{"layers/control/...", "spec/..."},
		deny: []string{containerd, containerAPI, libcontainer, "golang.org/x/sys/unix"}},

	// A manager knows its members' interface, never a member. A member
	// knows no sibling: tracer, procfs, tcprepair, netdrop, netns, packet and filetree are mechanism, not subsystems.
	{dir: "layers/kernel", allow: []string{"layers/kernel/target", "spec/..."}, deny: []string{containerd, containerAPI, libcontainer}},
	// Between control and the subsystems.
	{dir: "layers/kernel/onthread", allow: []string{"layers/kernel", "layers/kernel/tracer", "layers/control", "spec/..."}, deny: []string{containerd, containerAPI, libcontainer}},
	{dir: "layers/kernel/container", allow: []string{"layers/kernel/target", "layers/kernel/tracer", "layers/kernel/procfs", "layers/control", "spec/..."}, deny: []string{containerd, containerAPI, libcontainer}},
	{dir: "layers/kernel/...", allow: []string{"layers/kernel/target", "layers/kernel/tracer/...", "layers/kernel/procfs/...", "layers/kernel/tcprepair", "layers/kernel/netdrop", "layers/kernel/netns", "layers/kernel/packet", "layers/kernel/filetree", "layers/kernel/kerneltest", "spec/..."},
		deny: []string{containerd, containerAPI, libcontainer}},
	{dir: "layers/medium", allow: []string{"layers/control", "spec/..."}, deny: []string{containerd, containerAPI, libcontainer}},
	{dir: "layers/medium/...", allow: []string{"layers/medium", "layers/medium/mediumtest", "spec/..."},
		deny: []string{containerd, containerAPI, libcontainer}},

	// For applications: a small package without dependencies.
	{dir: "agent/...", allow: []string{"agent", "spec/agent"}, deny: []string{containerd, containerAPI, libcontainer}},

	{dir: "spec/...", allow: []string{"spec/..."}, deny: []string{containerd, containerAPI, libcontainer}},
	// What a container is, for anyone to read: no dependency at all.
	{dir: "spec/record", allow: nil, deny: []string{containerd, containerAPI, libcontainer}},
}
