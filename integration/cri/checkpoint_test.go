// SPDX-License-Identifier: Apache-2.0

package cri

import (
	"archive/tar"
	"errors"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"github.com/checkpoint-restore/go-criu/v7/rpc"
	"golang.org/x/sys/unix"
	"google.golang.org/protobuf/proto"
	v1 "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/io-mig/mig/integration/internal/daemon"
	"github.com/io-mig/mig/integration/internal/image"
)

// TestCheckpointContainer: the kubelet's checkpoint of a container under io.mig.v1
// leaves it running, and its archive holds an image of mig's that is whole. containerd
// asks for CRIU's version before; a stand-in answers.
func TestCheckpointContainer(t *testing.T) {
	n := newNode(t, daemon.V24, image.Busybox)
	n.standIn()
	p := n.runPod("mig", "saved", nil)
	defer p.end()
	b := p.run("main", `echo kept >/tmp/file; i=0; while :; do i=$((i+1)); echo $i >/tmp/next; mv /tmp/next /tmp/n; sleep 0.05; done`, nil)
	n.await("it counts", func() (bool, any) { out := b.exec("cat /tmp/n"); return strings.HasPrefix(out, "0 "), out })
	for range 2 {
		where := filepath.Join(t.TempDir(), "checkpoint.tar")
		if _, err := n.CheckpointContainer(n.ctx(), &v1.CheckpointContainerRequest{ContainerId: b.id, Location: where}); err != nil {
			t.Fatal(err)
		}
		if s := b.status(); s.State != v1.ContainerState_CONTAINER_RUNNING {
			t.Errorf("it is %v", s.State)
		}
		if out := b.exec("a=$(cat /tmp/n); sleep 0.5; [ $(cat /tmp/n) -gt $a ]"); !strings.HasPrefix(out, "0 ") {
			t.Errorf("it does not count on: %s", out)
		}
		dir := t.TempDir()
		unpack(t, where, dir)
		if out, err := exec.Command(n.d.Tree.Bin("mig"), "verify", filepath.Join(dir, "checkpoint")).CombinedOutput(); err != nil {
			t.Errorf("mig verify: %v: %s", err, out)
		}
		if _, err := os.Stat(filepath.Join(dir, "rootfs-diff.tar")); err != nil {
			t.Error(err)
		}
	}
	b.remove()
}

// answerAsCRIU tells a version on a descriptor, as `criu swrk FD` does.
func answerAsCRIU(fd string) error {
	n, err := strconv.Atoi(fd)
	if err != nil {
		return err
	}
	if _, err := unix.Read(n, make([]byte, 4096)); err != nil {
		return err
	}
	kind := rpc.CriuReqType_VERSION
	b, err := proto.Marshal(&rpc.CriuResp{
		Type: &kind, Success: proto.Bool(true),
		Version: &rpc.CriuVersion{MajorNumber: proto.Int32(4), MinorNumber: proto.Int32(2)},
	})
	if err != nil {
		return err
	}
	_, err = unix.Write(n, b)
	return err
}

// standIn has containerd find this program where it looks for CRIU.
func (n *node) standIn() {
	n.t.Helper()
	self, err := os.Executable()
	if err == nil {
		err = os.Symlink(self, filepath.Join(n.d.Dir, "path", "criu"))
	}
	if err != nil {
		n.t.Fatal(err)
	}
}

// unpack extracts the regular files of an archive.
func unpack(t *testing.T, from, dir string) {
	t.Helper()
	f, err := os.Open(from)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	root, err := os.OpenRoot(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer root.Close()
	for r := tar.NewReader(f); ; {
		h, err := r.Next()
		if errors.Is(err, io.EOF) {
			return
		}
		if err != nil {
			t.Fatal(err)
		}
		if h.Typeflag != tar.TypeReg {
			continue
		}
		if err := root.MkdirAll(filepath.Dir(h.Name), 0o700); err != nil {
			t.Fatal(err)
		}
		out, err := root.Create(h.Name)
		if err == nil {
			_, err = io.Copy(out, r)
			err = errors.Join(err, out.Close())
		}
		if err != nil {
			t.Fatal(err)
		}
	}
}
