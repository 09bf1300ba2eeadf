// SPDX-License-Identifier: Apache-2.0

package live

import (
	"encoding/json"
	"strings"
	"testing"

	"github.com/io-mig/mig/integration/internal/daemon"
	"github.com/io-mig/mig/integration/internal/image"
)

// TestImageIsNowhere: what a container was made from is not on its host any more.
// A layer that neither host has, a lost configuration and a removed image are named
// before anything is touched; with the layers on the other host it moves without.
func TestImageIsNowhere(t *testing.T) {
	w := newWorld(t, daemon.V24, image.Busybox)
	const id = "web"
	w.run(w.alpha, image.Busybox, id, "sleep", "1000")
	pid := w.alpha.pid(id)
	config, layers := w.alpha.blobs(t, image.Busybox.Name)
	refused := func(why ...string) {
		t.Helper()
		r := w.refused(w.alpha, why[0], id, w.beta.IP)
		for _, word := range why {
			if !strings.Contains(r.Failure.Text, word) {
				t.Errorf("it says %q, without %q", r.Failure.Text, word)
			}
		}
		if now := w.alpha.pid(id); now != pid || w.alpha.status(id) != "RUNNING" {
			t.Errorf("pid %s was %s, the task is %q", now, pid, w.alpha.status(id))
		}
		w.clean(w.beta)
	}
	w.alpha.d.Must(t, append([]string{"content", "rm"}, layers...)...)
	refused(layers[0]+" is neither here nor on the source", "pull "+image.Busybox.Name)
	// The other host has unpacked it: the layer is not needed.
	w.beta.d.Load(t, image.Busybox)
	w.beta.d.Must(t, append([]string{"content", "rm"}, layers...)...)
	w.beta.d.Must(t, "images", "rm", "--sync", image.Busybox.Name) // and nothing of it is left
	refused(layers[0]+" is neither here nor on the source", "pull "+image.Busybox.Name)
	w.beta.d.Load(t, image.Busybox)
	w.mustMove(w.alpha, id, w.beta.IP)
	w.one(id, w.beta, w.alpha)
	w.alpha.d.Load(t, image.Busybox) // with its layers again
	w.mustMove(w.beta, id, w.alpha.IP)
	w.one(id, w.alpha, w.beta)
	pid = w.alpha.pid(id)

	w.alpha.d.Must(t, "content", "rm", config)
	refused("its configuration", config, "pull it again")
	w.alpha.d.Must(t, "images", "rm", "--sync", image.Busybox.Name)
	refused("its image "+image.Busybox.Name, "not found", "pull it again")
	w.alpha.d.Load(t, image.Busybox)
	w.mustMove(w.alpha, id, w.beta.IP)
	w.one(id, w.beta, w.alpha)
}

// blobs are the digests of an image's configuration and layers.
func (h *host) blobs(t *testing.T, name string) (config string, layers []string) {
	t.Helper()
	var target string
	for line := range strings.Lines(h.d.Must(t, "images", "ls").Stdout) {
		if f := strings.Fields(line); len(f) > 2 && f[0] == name {
			target = f[2]
		}
	}
	type blob struct{ Digest string }
	for {
		var m struct {
			Manifests, Layers []blob
			Config            blob
		}
		b := h.d.Must(t, "content", "get", target).Stdout
		if err := json.Unmarshal([]byte(b), &m); err != nil {
			t.Fatalf("%s: %v: %s", target, err, b)
		}
		if len(m.Manifests) > 0 {
			target = m.Manifests[0].Digest
			continue
		}
		for _, l := range m.Layers {
			layers = append(layers, l.Digest)
		}
		return m.Config.Digest, layers
	}
}
