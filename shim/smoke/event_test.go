// SPDX-License-Identifier: Apache-2.0

package smoke

import (
	"bytes"
	"context"
	"fmt"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"
)

// log collects the topics of a daemon's task events.
type eventLog struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (l *eventLog) Write(b []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.buf.Write(b)
}

var topic = regexp.MustCompile(` /tasks/(\S+) `)

func (l *eventLog) topics() (topics []string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for line := range strings.Lines(l.buf.String()) {
		if m := topic.FindStringSubmatch(line); m != nil {
			topics = append(topics, m[1])
		}
	}
	return topics
}

// events subscribes until the test ends.
func (d *daemon) events() *eventLog {
	d.t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	l := &eventLog{}
	cmd := d.command(ctx, "events")
	cmd.Stdout = l
	if err := cmd.Start(); err != nil {
		d.t.Fatal(err)
	}
	d.t.Cleanup(func() { cancel(); cmd.Wait() })
	// The subscription is in effect once an event of ours arrives.
	i := 0
	d.eventually("events arrive", func() bool {
		i++
		d.must("namespaces", "create", fmt.Sprintf("%s-e%d", d.namespace, i))
		d.must("namespaces", "remove", fmt.Sprintf("%s-e%d", d.namespace, i))
		l.mu.Lock()
		defer l.mu.Unlock()
		return l.buf.Len() > 0
	})
	return l
}

func TestEvents(t *testing.T) {
	onEach(t, func(t *testing.T, d *daemon) {
		l := d.events()
		d.detached("one", nil, "sleep", "1000")
		d.must("task", "exec", "--exec-id", "e1", "one", "true")
		d.must("task", "pause", "one")
		d.must("task", "resume", "one")
		// A session that lives when the init dies: init's exit comes last.
		d.must("task", "exec", "-d", "--exec-id", "e2", "one", "sleep", "1000")
		d.must("task", "kill", "-s", "9", "one")
		d.eventually("stopped", func() bool { return d.status("one") == "STOPPED" })
		d.must("task", "rm", "one")
		want := strings.Fields("create start exec-added exec-started exit paused resumed exec-added exec-started exit exit delete")
		d.eventually("the last event", func() bool { return len(l.topics()) >= len(want) })
		if got := l.topics(); !slices.Equal(got, want) {
			t.Errorf("events %v\nwant   %v", got, want)
		}
		// The last exit is the init's.
		l.mu.Lock()
		defer l.mu.Unlock()
		var last string
		for line := range strings.Lines(l.buf.String()) {
			if strings.Contains(line, "/tasks/exit") {
				last = line
			}
		}
		if !strings.Contains(last, `"id":"one"`) {
			t.Errorf("last exit %s, want the init's", last)
		}
	})
}

func TestOOMEvent(t *testing.T) {
	onEach(t, func(t *testing.T, d *daemon) {
		l := d.events()
		flags := []string{"--memory-limit", fmt.Sprint(16 << 20)}
		d.detached("one", flags, "sh", "-c", "sleep 1; tail /dev/zero; sleep 1000")
		d.eventually("an oom event", func() bool { return slices.Contains(l.topics(), "oom") })
	})
}
