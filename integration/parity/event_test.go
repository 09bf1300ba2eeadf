// SPDX-License-Identifier: Apache-2.0

package parity

import (
	"bytes"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/io-mig/mig/integration/internal/itest"
)

// eventOperations compare what `ctr events` tells of a task. Each names the
// ends that clients are promised to hear of.
var eventOperations = []operation{
	{name: "events-run", do: eventsOf(func(p *probe) {
		p.quiet(p.runArgs([]string{"--rm"}, "sh", "-c", "exit 3")...)
	}, initEnds(3)...)},
	{name: "events-exec", do: eventsOf(func(p *probe) {
		p.sleeper()
		p.exec(nil, "sh", "-c", "exit 4")
		p.quiet("tasks", "delete", "--force", p.id)
	}, initEnds(137)...)},
	{name: "events-pause", do: eventsOf(func(p *probe) {
		p.sleeper()
		p.must("tasks", "pause", p.id)
		p.must("tasks", "resume", p.id)
		p.quiet("tasks", "delete", "--force", p.id)
	}, initEnds(137)...)},
	{name: "events-exec-alive", do: eventsOf(func(p *probe) {
		p.sleeper()
		p.must("tasks", "exec", "--detach", "--exec-id", "side", p.id, "sleep", "1000")
		p.must("tasks", "kill", "--signal", "KILL", p.id)
		p.await("STOPPED")
		p.quiet("tasks", "delete", p.id)
	}, append(initEnds(137), `/tasks/exit container_id="ID" exit_status=137 id="side"`)...)},
	{name: "events-failed-create", do: eventsOf(func(p *probe) { p.quiet(p.runArgs([]string{"--rm"}, "no-such-program")...) })},
	{name: "events-oom", do: eventsOf(func(p *probe) {
		p.quiet(p.runArgs([]string{"--rm", "--memory-limit", "16777216"}, "sh", "-c", "exec tail /dev/zero")...)
	}, append(initEnds(137), `/tasks/oom container_id="ID"`)...)},
}

// initEnds are the last events of a task. ID stands for the container's.
func initEnds(status int) []string {
	return []string{
		fmt.Sprintf(`/tasks/exit container_id="ID" exit_status=%d id="ID"`, status),
		fmt.Sprintf(`/tasks/delete container_id="ID" exit_status=%d`, status),
	}
}

// eventsOf returns an operation that records the task events of do, with the
// fields that say what happened. Runc's shim often ends before its last events
// are sent, and containerd then sends fewer than clients are promised: what is
// promised is put in. Mig has to tell it all.
func eventsOf(do func(*probe), promised ...string) func(*probe) {
	return func(p *probe) {
		events, complete := p.listen(do)
		if p.runtime == itest.Runc {
			for _, event := range promised {
				event = strings.ReplaceAll(event, "ID", p.id)
				if !slices.Contains(events, event) {
					events = append(events, event)
				}
			}
		} else {
			p.inOrder(events)
			if !complete {
				p.t.Errorf("on %s: exit or delete was not told:\n%s", p.runtime, strings.Join(events, "\n"))
			}
		}
		slices.Sort(events) // runc's order varies at the end
		for _, event := range events {
			p.record("event %s", event)
		}
	}
}

// listen returns the task events of do and whether they were all told.
func (p *probe) listen(do func(*probe)) (events []string, complete bool) {
	p.t.Helper()
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
	for end := time.Now().Add(3 * time.Second); !complete && time.Now().Before(end); time.Sleep(20 * time.Millisecond) {
		complete = p.eventsComplete(out.String())
	}
	_ = cmd.Process.Signal(syscall.SIGTERM)
	_ = cmd.Wait()
	return taskEvents(out.String()), complete
}

// eventsComplete reports whether nothing more is to come: the container is
// removed, or its task is deleted and the exit was told.
func (p *probe) eventsComplete(output string) bool {
	exit := strings.Contains(output, `/tasks/exit {"container_id":"`+p.id+`","id":"`+p.id+`"`)
	deleted := strings.Contains(output, "/tasks/delete")
	neverRan := strings.Contains(output, "/snapshot/remove") && !strings.Contains(output, "/tasks/create")
	return exit && deleted || neverRan
}

// inOrder holds mig to the order that clients rely on: create, start, exit,
// delete of the init process, whose exit comes after all other exits.
func (p *probe) inOrder(events []string) {
	p.t.Helper()
	last := -1
	for _, want := range []string{"/tasks/create", "/tasks/start", "/tasks/exit", "/tasks/delete"} {
		at := -1
		for i, event := range events {
			if strings.HasPrefix(event, want+" ") {
				at = i
			}
		}
		if at >= 0 && at < last {
			p.t.Errorf("on %s: %s comes too early:\n%s", p.runtime, want, strings.Join(events, "\n"))
		}
		last = max(last, at)
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
