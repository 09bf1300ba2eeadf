// SPDX-License-Identifier: Apache-2.0

// Package cri runs pods as a kubelet does: through containerd's CRI service, under
// io.mig.v1 and under runc's shim, and compares what the kubelet would see.
package cri

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	v1 "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/io-mig/mig/integration/internal/daemon"
	"github.com/io-mig/mig/integration/internal/image"
	"github.com/io-mig/mig/integration/internal/itest"
	"github.com/io-mig/mig/integration/internal/lab"
)

func TestMain(m *testing.M) {
	if len(os.Args) == 3 && os.Args[1] == "swrk" { // see standIn
		if err := answerAsCRIU(os.Args[2]); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	itest.Main(m)
}

// handlers are the names of RuntimeClasses' handlers in the configuration.
var handlers = []string{"runc", "mig"}

// pause keeps a pod's namespaces. It is of busybox, as registries are not reachable.
var pause = image.Image{Name: "mig.test/pause:1", Command: []string{"sleep", "2147483647"}}

// namespace is containerd's of everything that CRI makes.
const namespace = "k8s.io"

// node is a host with a containerd that serves CRI.
type node struct {
	t      *testing.T
	host   *lab.Host
	d      *itest.Host
	logs   string // directory of the pods' logs
	cgroup string // parent of the pods' cgroups
	v1.RuntimeServiceClient
}

// newNode starts a containerd with a CNI network of its own, on a host of its own.
func newNode(t *testing.T, version daemon.Version, images ...image.Image) *node {
	t.Helper()
	l, err := lab.New("node")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := l.Close(); err != nil {
			t.Errorf("end of the lab: %v", err)
		}
	})
	n := &node{t: t, host: l.Hosts[0], logs: t.TempDir(), cgroup: "/" + l.Name}
	if err := n.host.Bridge(); err != nil {
		t.Fatal(err)
	}
	cni := n.writeCNI(filepath.Join(t.TempDir(), "net.d"))
	n.d = itest.Start(t, daemon.Config{
		Version: version, CRI: true, Enter: n.host.Enter(), Namespace: namespace, Extra: configuration(version, cni),
	}, append(images, pause)...)
	n.connect()
	return n
}

// writeCNI makes a network on the host's bridge, whose leases are in dir, too.
func (n *node) writeCNI(dir string) string {
	n.t.Helper()
	text := fmt.Sprintf(`{"cniVersion":"0.4.0","name":"pods","plugins":[{"type":"bridge","bridge":"br0","ipam":{"type":"host-local","dataDir":%q,
"ranges":[[{"subnet":"10.77.0.0/24","rangeStart":"10.77.0.100","rangeEnd":"10.77.0.120"}]],"routes":[{"dst":"0.0.0.0/0","gw":"10.77.0.1"}]}}]}`, filepath.Join(dir, "leases"))
	if err := os.MkdirAll(dir, 0o700); err != nil {
		n.t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "10-pods.conflist"), []byte(text), 0o600); err != nil {
		n.t.Fatal(err)
	}
	return dir
}

// configuration is what docs/clients.md says, and what keeps this daemon apart from
// the machine. Lower scores for the kernel's killer need CAP_SYS_RESOURCE.
func configuration(version daemon.Version, cni string) string {
	images, runtime, pinned, bins := "io.containerd.cri.v1.images", "io.containerd.cri.v1.runtime", `[plugins.'io.containerd.cri.v1.images'.pinned_images]
  sandbox = '`+pause.Name+`'
[plugins.'io.containerd.grpc.v1.cri']
  stream_server_address = '127.0.0.1'`, "bin_dirs = ['/usr/lib/cni']"
	if version == daemon.V16 {
		images, runtime, bins = "", "io.containerd.grpc.v1.cri", "bin_dir = '/usr/lib/cni'"
		pinned = ""
	}
	text := pinned
	if images != "" {
		text += fmt.Sprintf("\n[plugins.'%s']\n  snapshotter = 'overlayfs'\n", images)
	}
	text += fmt.Sprintf("\n[plugins.'%s']\n  restrict_oom_score_adj = true\n  netns_mounts_under_state_dir = true\n", runtime)
	if version == daemon.V16 {
		text += "  sandbox_image = '" + pause.Name + "'\n  stream_server_address = '127.0.0.1'\n"
	}
	text += fmt.Sprintf("[plugins.'%s'.containerd]\n  default_runtime_name = 'runc'\n", runtime)
	for name, kind := range map[string]string{"runc": itest.Runc, "mig": itest.Mig} {
		text += fmt.Sprintf("[plugins.'%[1]s'.containerd.runtimes.%[2]s]\n  runtime_type = '%[3]s'\n  pod_annotations = ['io.mig/*']\n  container_annotations = ['io.mig/*']\n", runtime, name, kind)
	}
	return text + fmt.Sprintf("[plugins.'%s'.cni]\n  conf_dir = '%s'\n  %s\n", runtime, cni, bins)
}

// connect waits until the service and its network are ready.
func (n *node) connect() {
	n.t.Helper()
	conn, err := grpc.NewClient("unix://"+n.d.Address, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		n.t.Fatal(err)
	}
	n.t.Cleanup(func() { conn.Close() })
	n.RuntimeServiceClient = v1.NewRuntimeServiceClient(conn)
	n.await("the runtime and its network are ready", func() (bool, any) {
		s, err := n.Status(n.ctx(), &v1.StatusRequest{})
		if err != nil {
			return false, err
		}
		for _, c := range s.Status.Conditions {
			if !c.Status && (c.Type == v1.RuntimeReady || c.Type == v1.NetworkReady) {
				return false, c
			}
		}
		return true, nil
	})
}

func (n *node) ctx() context.Context { return n.t.Context() }

// patience is for what takes a moment on a busy machine.
const patience = 60 * time.Second

// await waits for a state.
func (n *node) await(what string, ready func() (bool, any)) {
	n.t.Helper()
	for end := time.Now().Add(patience); ; time.Sleep(20 * time.Millisecond) {
		ok, last := ready()
		if ok {
			return
		}
		if time.Now().After(end) {
			n.t.Fatalf("%s: not within %v: %v", what, patience, last)
		}
	}
}
