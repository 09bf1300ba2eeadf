// SPDX-License-Identifier: Apache-2.0

package engine

import (
	"bytes"
	"compress/gzip"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"hash/crc32"
	"io"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"

	"github.com/io-mig/mig/layers/kernel/cgroup"
	"github.com/io-mig/mig/layers/kernel/clock"
	"github.com/io-mig/mig/layers/kernel/cpu"
	"github.com/io-mig/mig/layers/kernel/credential"
	"github.com/io-mig/mig/layers/kernel/file"
	"github.com/io-mig/mig/layers/kernel/memory"
	"github.com/io-mig/mig/layers/kernel/pipe"
	"github.com/io-mig/mig/layers/kernel/rootfs"
	"github.com/io-mig/mig/layers/kernel/signal"
	"github.com/io-mig/mig/layers/kernel/task"
	"github.com/io-mig/mig/layers/kernel/timer"
	"github.com/io-mig/mig/spec/image"
	"github.com/io-mig/mig/spec/record"
	"github.com/io-mig/mig/spec/state"
)

var update = flag.Bool("update", false, "write anew what the golden images of containers are read as")

// TestGoldenContainers reads images of whole containers as an earlier version has
// written them, and compares what their records say with what they said then. A
// difference is a change of the format. Images and their restore are in
// integration/programs (golden_test.go).
func TestGoldenContainers(t *testing.T) {
	dirs, err := filepath.Glob("testdata/golden/*")
	if err != nil || len(dirs) == 0 {
		t.Fatalf("no golden images: %v", err)
	}
	for _, dir := range dirs {
		t.Run(filepath.Base(dir), func(t *testing.T) {
			said, err := readGolden(dir)
			if err != nil {
				t.Fatal(err)
			}
			path := filepath.Join(dir, "records.txt")
			if *update {
				if err := os.WriteFile(path, said, 0o644); err != nil {
					t.Fatal(err)
				}
			}
			want, err := os.ReadFile(path)
			if err != nil {
				t.Fatal(err)
			}
			a, b := strings.Split(string(said), "\n"), strings.Split(string(want), "\n")
			for i := range max(len(a), len(b)) {
				if is, was := line(a, i), line(b, i); is != was {
					t.Errorf("%s:%d: it was\n%s\nand is read as\n%s", path, i+1, was, is)
				}
			}
		})
	}
}

func line(lines []string, i int) string {
	if i < len(lines) {
		return lines[i]
	}
	return "(nothing)"
}

// readGolden returns a line for each record of an image.
func readGolden(dir string) ([]byte, error) {
	packed, err := os.ReadFile(filepath.Join(dir, image.StateName+".gz"))
	if err != nil {
		return nil, err
	}
	z, err := gzip.NewReader(bytes.NewReader(packed))
	if err != nil {
		return nil, err
	}
	content, err := io.ReadAll(z)
	if err != nil {
		return nil, err
	}
	man, err := os.ReadFile(filepath.Join(dir, image.ManifestName))
	if err != nil {
		return nil, err
	}
	m, err := image.DecodeManifest(bytes.NewReader(man), image.ManifestName)
	if err != nil {
		return nil, err
	}
	subsystems, err := Subsystems()
	if err != nil {
		return nil, err
	}
	for _, s := range m.Subsystems {
		err = errors.Join(err, subsystems.Accepts(s.Name, s.Version))
	}
	if err != nil {
		return nil, err
	}
	d, err := image.NewReader(bytes.NewReader(content), image.Options{Name: image.StateName, Size: m.Files[0].Size, Subsystems: m.Names()})
	if err != nil {
		return nil, err
	}
	var out bytes.Buffer
	err = image.Walk(d, func(e image.Entry) error {
		payload := make([]byte, e.Length)
		if err := d.Payload(payload); err != nil {
			return err
		}
		said, err := says(e.Record(payload))
		if err != nil {
			return fmt.Errorf("record %d, %s: %w", e.Number, e.Header, err)
		}
		fmt.Fprintf(&out, "%s: %s\n", e.Header, said)
		return nil
	})
	return out.Bytes(), err
}

// kindOf is a subsystem's kind of record.
type kindOf struct {
	subsystem string
	kind      uint32
}

// messages are the kinds in golden images whose payloads are messages, raw those
// whose payloads are not.
var (
	messages = map[kindOf]proto.Message{
		{cgroup.Name, cgroup.KindHierarchy}:       &state.Hierarchy{},
		{clock.Name, clock.KindBegin}:             &state.Clocks{},
		{clock.Name, clock.KindStop}:              &state.Clocks{},
		{cpu.Name, cpu.KindLayout}:                &state.XSaveLayout{},
		{cpu.Name, cpu.KindThreads}:               &state.ThreadsCPU{},
		{credential.Name, credential.KindProcess}: &state.ProcessLimits{},
		{credential.Name, credential.KindThreads}: &state.ThreadCredentials{},
		{file.Name, file.KindTable}:               &state.DescriptorTable{},
		{file.Name, file.KindThreadTable}:         &state.DescriptorTable{},
		{file.Name, file.KindWorking}:             &state.WorkingFiles{},
		{file.Name, file.KindOpen}:                &state.OpenFile{},
		{file.Name, file.KindObject}:              &state.FileObject{},
		{memory.Name, memory.KindAddressSpace}:    &state.AddressSpace{},
		{memory.Name, memory.KindMappings}:        &state.Mappings{},
		{memory.Name, memory.KindObject}:          &state.FileObject{},
		{memory.Name, memory.KindInherited}:       &state.Inherited{},
		{pipe.Name, pipe.KindPipe}:                &state.Pipe{},
		{rootfs.Name, rootfs.KindTree}:            &state.FileTree{},
		{rootfs.Name, rootfs.KindItems}:           &state.TreeItems{},
		{rootfs.Name, rootfs.KindMount}:           &state.Mount{},
		{signal.Name, signal.KindProcess}:         &state.ProcessSignals{},
		{signal.Name, signal.KindThreads}:         &state.ThreadSignals{},
		{task.Name, task.KindProcess}:             &state.Process{},
		{task.Name, task.KindThreads}:             &state.Threads{},
		{task.Name, task.KindTree}:                &state.Tree{},
		{task.Name, task.KindSettings}:            &state.Settings{},
		{task.Name, task.KindSharing}:             &state.Sharing{},
		{task.Name, task.KindGroups}:              &state.ThreadGroups{},
		{timer.Name, timer.KindInterval}:          &state.IntervalTimers{},
	}
	raw = map[kindOf]bool{
		{memory.Name, memory.KindPages}: true, {memory.Name, memory.KindScattered}: true, {memory.Name, memory.KindContent}: true,
		{file.Name, file.KindContent}: true,
	}
)

// says is what a record holds: a message as JSON, which has to hold all that was
// written, anything else as its length and checksum.
func says(r *record.Record) (string, error) {
	if err := r.Verify(); err != nil {
		return "", err
	}
	k := kindOf{r.Subsystem, r.Kind}
	if raw[k] {
		return fmt.Sprintf("%d bytes, %08x", len(r.Payload), r.Sum), nil
	}
	m, ok := messages[k]
	if !ok {
		return "", errors.New("no message is known for this kind: add it to this test")
	}
	m = m.ProtoReflect().New().Interface()
	if err := proto.Unmarshal(r.Payload, m); err != nil {
		return "", err
	}
	if where := unknown(m.ProtoReflect()); where != "" {
		return "", fmt.Errorf("%s has fields that are not known any more", where)
	}
	loose, err := protojson.Marshal(m)
	if err != nil {
		return "", err
	}
	var b bytes.Buffer
	err = json.Compact(&b, loose) // protojson varies its white space on purpose
	return long.ReplaceAllStringFunc(b.String(), func(text string) string {
		return fmt.Sprintf(`"%d characters, %08x"`, len(text)-2, crc32.ChecksumIEEE([]byte(text)))
	}), err
}

// long are texts of which a checksum says enough: registers and the like.
var long = regexp.MustCompile(`"[A-Za-z0-9+/=]{100,}"`)

// unknown names a message in m with fields that its type does not have, "" if there
// is none.
func unknown(m protoreflect.Message) (where string) {
	if len(m.GetUnknown()) > 0 {
		return string(m.Descriptor().FullName())
	}
	m.Range(func(f protoreflect.FieldDescriptor, v protoreflect.Value) bool {
		switch {
		case f.IsMap() || f.Message() == nil:
		case f.IsList():
			for i := 0; i < v.List().Len() && where == ""; i++ {
				where = unknown(v.List().Get(i).Message())
			}
		default:
			where = unknown(v.Message())
		}
		return where == ""
	})
	return where
}
