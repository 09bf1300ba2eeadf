// SPDX-License-Identifier: Apache-2.0

package traffic

import (
	"bytes"
	"context"
	"fmt"
	"os/exec"
	"regexp"
	"strconv"
	"strings"
	"time"
)

// tool is a program of the clients' that works for some seconds, once for each look,
// and longer each time that it ends too early. It is a Load.
type tool struct {
	client  Client
	command string // of a shell, with %d for the seconds
	// read finds in what it printed what its clients have seen.
	read func(out string) (Seen, error)

	seconds int
	out     bytes.Buffer
	exit    chan error
	ended   time.Time // valid when exit has something
	kill    func()
}

// toolSeconds are what a tool begins with: longer than a move takes on a machine with
// nothing else to do.
const toolSeconds = 2

// ErrNoEnd is of a tool that ought to have ended: one of its connections says nothing
// any more.
var ErrNoEnd = fmt.Errorf("it has not ended %v after its time", patience)

func (t *tool) Begin(ctx context.Context) error {
	t.seconds = max(t.seconds, toolSeconds)
	t.out.Reset()
	ctx, t.kill = context.WithCancel(ctx)
	cmd := t.client.Command(ctx, "sh", "-c", "exec "+fmt.Sprintf(t.command, t.seconds))
	cmd.Stdout, cmd.Stderr = &t.out, &t.out
	if err := cmd.Start(); err != nil {
		return err
	}
	t.exit = make(chan error, 1)
	go func() {
		err := cmd.Wait()
		t.ended = time.Now()
		t.exit <- err
	}()
	return nil
}

func (t *tool) End() (Seen, error) {
	defer t.kill()
	var err error
	select {
	case err = <-t.exit: // before the end of the move
		t.seconds *= 2
	default:
		select {
		case err = <-t.exit:
		case <-time.After(time.Duration(t.seconds)*time.Second + patience):
			return Seen{}, fmt.Errorf("%s: %w", t.command, ErrNoEnd)
		}
	}
	out := t.out.String()
	if err != nil {
		return Seen{}, fmt.Errorf("%s: %w: %s", t.command, err, out)
	}
	seen, err := t.read(out)
	if err != nil {
		return Seen{}, fmt.Errorf("%s: %w", t.command, err)
	}
	seen.Until = t.ended
	return seen, nil
}

func (t *tool) Close() error {
	if t.kill != nil {
		t.kill()
	}
	return nil
}

// steady is a tool that works as long as its load.
type steady struct {
	cmd  *exec.Cmd
	out  bytes.Buffer
	exit chan error // has its end, and is closed
}

func (c Client) steady(name string, args ...string) (*steady, error) {
	s := &steady{cmd: c.Command(context.Background(), name, args...), exit: make(chan error, 1)}
	s.cmd.Stdout, s.cmd.Stderr = &s.out, &s.out
	if err := s.cmd.Start(); err != nil {
		return nil, err
	}
	go func() {
		s.exit <- s.cmd.Wait()
		close(s.exit)
	}()
	return s, nil
}

// end ends it and returns what it printed; an error if it had ended by itself. What
// was ended already has nothing to say.
func (s *steady) end() (string, error) {
	select {
	case err, ok := <-s.exit:
		if !ok {
			return "", nil
		}
		return s.out.String(), fmt.Errorf("%s has ended: %v: %s", s.cmd, err, &s.out)
	default:
	}
	_ = s.cmd.Process.Kill()
	<-s.exit
	return s.out.String(), nil
}

// find returns the number, or the milliseconds of the duration, that a pattern finds
// in what a program printed.
func find(out, expression string) (float64, error) {
	m := regexp.MustCompile(expression).FindStringSubmatch(out)
	if m == nil {
		return 0, fmt.Errorf("no %q in %s", expression, out)
	}
	if d, err := time.ParseDuration(strings.TrimSpace(m[1])); err == nil {
		return float64(d.Microseconds()) / 1000, nil
	}
	n, err := strconv.ParseFloat(m[1], 64)
	if err != nil {
		return 0, fmt.Errorf("%q in %s", m[1], out)
	}
	return n, nil
}

// count is find for what is often not there.
func count(out, expression string) int {
	n, err := find(out, expression)
	if err != nil {
		return 0
	}
	return int(n)
}

func milliseconds(ms float64) time.Duration { return time.Duration(ms * float64(time.Millisecond)) }
