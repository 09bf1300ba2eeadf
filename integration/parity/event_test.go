// SPDX-License-Identifier: Apache-2.0

package parity

import (
	"bytes"
	"encoding/json"
	"slices"
	"strings"
	"sync"
	"syscall"
)

// eventOperations compare what `ctr events` tells of a task.
var eventOperations = []operation{
	{name: "events-run", do: eventsOf(func(p *probe) { p.quiet(p.runArgs([]string{"--rm"}, "sh", "-c", "exit 3")...) })},
	{name: "events-exec", do: eventsOf(func(p *probe) {
		p.sleeper()
		p.exec(nil, "sh", "-c", "exit 4")
		p.quiet("tasks", "delete", "--force", p.id)
	})},
	{name: "events-pause", do: eventsOf(func(p *probe) {
		p.sleeper()
		p.must("tasks", "pause", p.id)
		p.must("tasks", "resume", p.id)
		p.quiet("tasks", "delete", "--force", p.id)
	})},
	{name: "events-exec-alive", do: eventsOf(func(p *probe) {
		p.sleeper()
		p.must("tasks", "exec", "--detach", "--exec-id", "side", p.id, "sleep", "1000")
		p.must("tasks", "kill", "--signal", "KILL", p.id)
		p.await("STOPPED")
		p.quiet("tasks", "delete", p.id)
	})},
	{name: "events-failed-create", do: eventsOf(func(p *probe) { p.quiet(p.runArgs([]string{"--rm"}, "no-such-program")...) })},
	{name: "events-oom", do: eventsOf(func(p *probe) {
		p.quiet(p.runArgs([]string{"--rm", "--memory-limit", "16777216"}, "sh", "-c", "exec tail /dev/zero")...)
	})},
}

// eventsOf returns an operation that records the task events of do, in order,
// with the fields that say what happened.
func eventsOf(do func(*probe)) func(*probe) {
	return func(p *probe) {
		cmd := p.host.CtrCommand(p.t.Context(), "events")
		var out lockedBuffer
		cmd.Stdout, cmd.Stderr = &out, &out
		if err := cmd.Start(); err != nil {
			p.t.Fatal(err)
		}
		// Subscribed? An event of our own tells.
		p.eventually("ctr events is subscribed", func() bool {
			p.host.Ctr(p.t.Context(), "namespaces", "label", p.host.Namespace, "tick=tock")
			return strings.Contains(out.String(), "/namespaces/update")
		})
		do(p)
		p.eventually("the event of the end", func() bool {
			events := taskEvents(out.String())
			return len(events) > 0 && strings.HasPrefix(events[len(events)-1], "/tasks/delete") || strings.Contains(out.String(), "/snapshot/remove")
		})
		_ = cmd.Process.Signal(syscall.SIGTERM)
		_ = cmd.Wait()
		for _, event := range taskEvents(out.String()) {
			p.record("event %s", event)
		}
	}
}

// eventFields are compared; pids and times are not.
var eventFields = []string{"container_id", "exec_id", "id", "exit_status", "checkpoint"}

// taskEvents returns topic and compared fields of each task event.
func taskEvents(output string) []string {
	var events []string
	for line := range strings.Lines(output) {
		start := strings.Index(line, " /tasks/")
		if start < 0 {
			continue
		}
		topic, body, _ := strings.Cut(strings.TrimSpace(line[start:]), " ")
		var fields map[string]any
		_ = json.Unmarshal([]byte(body), &fields)
		var kept []string
		for name, value := range fields {
			if slices.Contains(eventFields, name) {
				text, _ := json.Marshal(value)
				kept = append(kept, name+"="+string(text))
			}
		}
		slices.Sort(kept)
		events = append(events, topic+" "+strings.Join(kept, " "))
	}
	return events
}

// lockedBuffer is written by a command while it is read.
type lockedBuffer struct {
	mu     sync.Mutex
	buffer bytes.Buffer
}

func (b *lockedBuffer) Write(data []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buffer.Write(data)
}

func (b *lockedBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buffer.String()
}
