// SPDX-License-Identifier: Apache-2.0

package live

import (
	"context"
	"net"

	"github.com/io-mig/mig/integration/internal/image"
	"github.com/io-mig/mig/integration/internal/itest"
	"github.com/io-mig/mig/integration/internal/traffic"
)

// Addresses of a container that clients talk to, and of their host.
const podIP4, podIP6, clientIP6 = "10.77.0.50", "fd77::50", "fd77::13"

// runPod starts a container on alpha, with an interface on the bridge, and sees to its
// end.
func (w *world) runPod(i image.Image, id string, command ...string) {
	w.t.Helper()
	w.runPodWith(nil, i, id, command...)
}

// runPodWith is runPod with flags of ctr run.
func (w *world) runPodWith(flags []string, i image.Image, id string, command ...string) {
	w.t.Helper()
	w.bridged()
	h := w.alpha
	args := append([]string{"run", "--detach", "--null-io", "--snapshotter", h.d.Snapshotter, "--runtime", itest.Mig}, flags...)
	h.d.Must(w.t, append(append(args, i.Name, id), command...)...)
	w.t.Cleanup(func() {
		w.alpha.d.Remove(id)
		w.beta.d.Remove(id)
	})
	w.wire(h, id, podIP4)
	h.inNetwork(w.t, id, "ip -6 addr add "+podIP6+"/64 dev eth0 nodad")
	if err := w.client.Run("ip -6 addr replace " + clientIP6 + "/64 dev eth0 nodad"); err != nil {
		w.t.Fatal(err)
	}
}

// dial connects from the client's host.
func (w *world) dial(ctx context.Context, address string) (net.Conn, error) {
	return w.dialBy(ctx, "tcp", address)
}

// dialBy is dial by another protocol.
func (w *world) dialBy(ctx context.Context, network, address string) (net.Conn, error) {
	return w.client.Dial(ctx, network, address)
}

// clients are those of the client's host.
func (w *world) clients() traffic.Client {
	w.t.Helper()
	return traffic.Client{Host: w.client, Dir: w.t.TempDir()}
}
