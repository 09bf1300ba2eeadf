// SPDX-License-Identifier: Apache-2.0

package host

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/opencontainers/runtime-spec/specs-go"

	"github.com/io-mig/mig/layers/request/peer"
	"github.com/io-mig/mig/shim/describe"
	"github.com/io-mig/mig/spec/network"
)

// Labels and annotations of a container that is on its way.
const (
	// LabelIncoming marks what a move has made and not finished, in containerd's
	// records; its value is the move's token.
	LabelIncoming = "io.mig/incoming"
	// The shim finds the engine's socket in AnnotationIncoming, and the
	// directory of this host's certificate in AnnotationTLS; AnnotationInsecure
	// takes its place in a loopback test.
	AnnotationIncoming = "io.mig/incoming"
	AnnotationTLS      = "io.mig/tls"
	AnnotationFrom     = "io.mig/from"
	AnnotationInsecure = "io.mig/insecure"
	// annotationAdded lists the annotations with policies that hold for the move
	// only.
	annotationAdded = describe.AddedForMove
	// annotationNetwork is what the container is given of this host's network.
	annotationNetwork = describe.OptionPrefix + network.OptionRequest
)

// incomingAnnotations are those that a container has only on its way.
var incomingAnnotations = []string{AnnotationIncoming, AnnotationTLS, AnnotationFrom, AnnotationInsecure, annotationAdded, annotationNetwork}

// editAnnotations returns a spec with other annotations and everything else as
// it was, whatever fields this mig knows.
func editAnnotations(raw []byte, edit func(map[string]string)) ([]byte, error) {
	var spec map[string]json.RawMessage
	if err := json.Unmarshal(raw, &spec); err != nil {
		return nil, fmt.Errorf("OCI configuration: %w", err)
	}
	annotations := map[string]string{}
	if old, ok := spec["annotations"]; ok {
		if err := json.Unmarshal(old, &annotations); err != nil {
			return nil, fmt.Errorf("OCI configuration: annotations: %w", err)
		}
	}
	if annotations == nil {
		annotations = map[string]string{} // it was null
	}
	edit(annotations)
	if len(annotations) == 0 {
		delete(spec, "annotations")
		return json.Marshal(spec)
	}
	b, err := json.Marshal(annotations)
	if err != nil {
		return nil, err
	}
	spec["annotations"] = b
	return json.Marshal(spec)
}

// withoutIncoming is the spec of a container that has arrived.
func withoutIncoming(raw []byte) ([]byte, error) {
	return editAnnotations(raw, func(a map[string]string) {
		for key := range strings.SplitSeq(a[annotationAdded], ",") {
			delete(a, key)
		}
		for _, key := range incomingAnnotations {
			delete(a, key)
		}
	})
}

// checkSpec names everything of this host that the spec needs and that is not
// there. Directories of volumes that are copied are made.
func checkSpec(raw []byte, copied []string) []peer.Mismatch {
	var spec specs.Spec
	if err := json.Unmarshal(raw, &spec); err != nil {
		return []peer.Mismatch{{What: "OCI configuration", Why: err.Error()}}
	}
	var found []peer.Mismatch
	need := func(what, path, remedy string) {
		if err := there(path); err != nil {
			found = append(found, peer.Mismatch{What: what, Why: err.Error(), Remedy: remedy})
		}
	}
	if spec.Root != nil && filepath.IsAbs(spec.Root.Path) {
		need("root filesystem", spec.Root.Path, "")
	}
	for _, m := range spec.Mounts {
		if isBind(m) && !slices.Contains(copied, filepath.Clean(m.Destination)) {
			need("mount on "+m.Destination, m.Source, "make the directory available on the destination")
		}
	}
	for _, path := range hooks(spec.Hooks) {
		need("hook", path, "install it on the destination")
	}
	if spec.Linux != nil {
		for _, n := range spec.Linux.Namespaces {
			if n.Path != "" {
				need(string(n.Type)+" namespace", n.Path, "make the namespace on the destination, at the same path")
			}
		}
		if spec.Linux.Seccomp != nil && spec.Linux.Seccomp.ListenerPath != "" {
			need("seccomp listener", spec.Linux.Seccomp.ListenerPath, "start the listener on the destination")
		}
	}
	return found
}

// MakeVolumes makes the directories of volumes that are copied and whose
// directories are not there, and returns the uppermost that it made of each. The
// container's content comes with its state.
func MakeVolumes(o *peer.Offer) (made []string, err error) {
	var spec specs.Spec
	if err := json.Unmarshal(o.Container.Spec, &spec); err != nil {
		return nil, fmt.Errorf("OCI configuration: %w", err)
	}
	for _, m := range spec.Mounts {
		if !isBind(m) || !slices.Contains(o.Container.Copied(), filepath.Clean(m.Destination)) {
			continue
		}
		first := ""
		for p := filepath.Clean(m.Source); ; p = filepath.Dir(p) {
			if _, err := os.Lstat(p); err == nil {
				break
			}
			first = p
		}
		if first == "" {
			continue
		}
		made = append(made, first)
		if err := os.MkdirAll(m.Source, 0o755); err != nil {
			return made, fmt.Errorf("directory of the volume %s: %w", m.Destination, err)
		}
	}
	return made, nil
}

// isBind: a bind mount from a path of the host.
func isBind(m specs.Mount) bool {
	return filepath.IsAbs(m.Source) && (m.Type == "bind" || slices.Contains(m.Options, "bind") || slices.Contains(m.Options, "rbind"))
}

func hooks(h *specs.Hooks) (paths []string) {
	if h == nil {
		return nil
	}
	//lint:ignore SA1019 the list is deprecated, and nerdctl and others use it
	prestart := h.Prestart
	for _, list := range [][]specs.Hook{prestart, h.CreateRuntime, h.CreateContainer, h.Poststart, h.Poststop} {
		for _, hook := range list {
			paths = append(paths, hook.Path)
		}
	}
	return paths
}

func there(path string) error {
	if strings.HasPrefix(path, "/proc/") && strings.Contains(path, "/ns/") {
		return fmt.Errorf("%s is a namespace of a process on the source", path)
	}
	_, err := os.Stat(path)
	if errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("there is no %s", path)
	}
	return err
}

// networkOf is the network that a container on its way here was promised. A spec
// that cannot be read promises nothing: it was this host that has written it.
func networkOf(raw []byte) *network.Request {
	var spec struct{ Annotations map[string]string }
	if json.Unmarshal(raw, &spec) != nil || spec.Annotations[annotationNetwork] == "" {
		return nil
	}
	r, err := network.Decode(spec.Annotations[annotationNetwork])
	if err != nil {
		return nil
	}
	return r
}
