// SPDX-License-Identifier: Apache-2.0

package checkpoint

import (
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/io-mig/mig/integration/internal/daemon"
	"github.com/io-mig/mig/integration/internal/image"
	"github.com/io-mig/mig/integration/internal/itest"
)

// cooperating is a container of agent/example.
type cooperating struct {
	t    *testing.T
	host *itest.Host
	id   string
}

var agentExecs atomic.Int64

// eachAgent runs a test for the examples in Go and in C, whose containers have further
// annotations.
func eachAgent(t *testing.T, version daemon.Version, test func(t *testing.T, a *cooperating), annotations ...string) {
	for _, tool := range []string{"agent-example", "agent-example-c"} {
		t.Run(tool, func(t *testing.T) {
			host := itest.Start(t, daemon.Config{Version: version})
			i := image.Image{Name: "mig.test/" + tool + ":1", Command: []string{"/app", "/run/list"}, Extra: map[string]string{"/app": host.Tree.Tool(tool)}}
			host.Load(t, i)
			a := &cooperating{t, host, "app"}
			removeLater(t, host, a.id)
			args := []string{"run", "--detach", "--null-io", "--runtime", itest.Mig}
			for _, v := range append(annotations, "io.mig/agent=true", "io.mig/agent-timeout=3s", "io.mig/agent-checkpoint="+filepath.Join(host.Dir, "own")) {
				args = append(args, "--annotation", v)
			}
			host.Must(t, append(args, i.Name, a.id)...)
			a.until("ready")
			test(t, a)
		})
	}
}

// sh runs a command in the container.
func (a *cooperating) sh(command string) string {
	a.t.Helper()
	return a.host.Must(a.t, "tasks", "exec", "--exec-id", "agent"+strconv.FormatInt(agentExecs.Add(1), 10), a.id, "sh", "-c", command).Stdout
}

// list is what the hooks were told.
func (a *cooperating) list() []string {
	a.t.Helper()
	return strings.Split(strings.TrimSpace(a.sh("cat /run/list || true")), "\n")
}

// until waits for a line that begins so, and returns all up to then.
func (a *cooperating) until(want string) []string {
	a.t.Helper()
	for end := time.Now().Add(20 * time.Second); ; time.Sleep(20 * time.Millisecond) {
		lines := a.list()
		if slices.ContainsFunc(lines, func(l string) bool { return strings.HasPrefix(l, want) }) {
			return lines
		}
		if time.Now().After(end) {
			a.t.Fatalf("%q does not come to %q", lines, want)
		}
	}
}

var generationOf = regexp.MustCompile(`generation=([0-9a-f]{32})`)

// generation is the last one that a list names.
func generation(lines []string) string {
	m := generationOf.FindAllStringSubmatch(strings.Join(lines, "\n"), -1)
	if len(m) == 0 {
		return ""
	}
	return m[len(m)-1][1]
}

func (a *cooperating) clean(lines []string) {
	a.t.Helper()
	for _, l := range lines {
		if strings.Contains(l, "behind the barrier") {
			a.t.Errorf("%s: %q", a.id, lines)
		}
	}
}

// TestAgent: the application comes to rest, the original hears that it goes on
// and the copy that it is one. ctr pauses the container around its checkpoint.
func TestAgent(t *testing.T) {
	itest.EachVersion(t, func(t *testing.T, version daemon.Version) {
		eachAgent(t, version, func(t *testing.T, a *cooperating) {
			save(t, a.host, a.id, ref)
			went := a.until("after restored=false")
			if want := []string{"ready", "before move=false", "after restored=false"}; len(went) != len(want) || !strings.HasPrefix(went[1], want[1]) {
				t.Errorf("the original was told %q", went)
			}
			a.clean(went)
			restore(t, a.host, "copy", ref)
			b := &cooperating{t, a.host, "copy"}
			came := b.until("after restored=true")
			b.clean(came)
			if g := generation(came); g == "" || g == generation(went) {
				t.Errorf("generations: %q, then %q", went, came)
			}
			save(t, b.host, b.id, "mig.test/saved:2")
			b.clean(b.until("after restored=false"))
		})
	})
}

// TestAgentItself: an application asks for its own checkpoint.
func TestAgentItself(t *testing.T) {
	eachAgent(t, daemon.V24, func(t *testing.T, a *cooperating) {
		a.sh("kill -USR1 1")
		a.clean(a.until("after restored=false"))
		images, err := filepath.Glob(filepath.Join(a.host.Dir, "own", "app-*", "*"))
		if err != nil || len(images) == 0 {
			t.Errorf("there is no image: %v, %v", images, err)
		}
		// A move was not allowed.
		a.sh("kill -USR2 1")
		a.until("asked")
		await(t, a.host, a.id, "RUNNING")
	})
}

// TestAgentHangs: an application that does not come to rest in its time runs on,
// and the message says why.
func TestAgentHangs(t *testing.T) {
	eachAgent(t, daemon.V24, func(t *testing.T, a *cooperating) {
		a.sh("touch /run/hang")
		r := a.host.Ctr(t.Context(), "tasks", "checkpoint", "--image-path", filepath.Join(a.host.Dir, "image"), a.id)
		if r.Err() == nil || !strings.Contains(r.Stderr, "does not come to rest") {
			t.Errorf("a checkpoint of an application that hangs: %v", r.Err())
		}
		lines := a.until("after restored=false")
		if l := lines[len(lines)-1]; !strings.Contains(l, "does not come to rest") {
			t.Errorf("the application is not told why: %q", lines)
		}
		a.sh("rm /run/hang")
		a.host.Must(t, "tasks", "checkpoint", "--image-path", filepath.Join(a.host.Dir, "image"), a.id)
	})
}

// TestAgentForced: where it is said to, the checkpoint goes on without an application
// that does not come to rest. That runs on, as does the copy; both come to rest the next
// time.
func TestAgentForced(t *testing.T) {
	eachAgent(t, daemon.V24, func(t *testing.T, a *cooperating) {
		a.sh("touch /run/hang")
		begun := time.Now()
		save(t, a.host, a.id, ref)
		if took := time.Since(begun); took < 3*time.Second {
			t.Errorf("it was given %s to come to rest, of 3s", took)
		}
		restore(t, a.host, "copy", ref)
		b := &cooperating{t, a.host, "copy"}
		went, came := a.until("after restored=false"), b.until("after restored=true")
		if g := generation(came); g == "" || g == generation(went) {
			t.Errorf("generations: %q, then %q", went, came)
		}
		for _, c := range []*cooperating{a, b} {
			c.sh("rm /run/hang && rm /run/list")
			save(t, c.host, c.id, "mig.test/rested:"+c.id)
			c.clean(c.until("after restored=false"))
		}
	}, "io.mig/agent-force=true")
}
