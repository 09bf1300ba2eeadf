// SPDX-License-Identifier: Apache-2.0

package traffic

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"time"

	"github.com/io-mig/mig/integration/internal/image"
)

// SSH has a session whose command answers line by line. The keys are made in dir.
func SSH(dir string) (Server, error) {
	files := map[string]string{"/run/sshd/keep": "", "/var/empty/keep": ""}
	for name, of := range map[string]string{"host": "host", "user": "user.pub"} {
		if out, err := exec.Command("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", filepath.Join(dir, name)).CombinedOutput(); err != nil {
			return Server{}, fmt.Errorf("ssh-keygen: %w: %s", err, out)
		}
		b, err := os.ReadFile(filepath.Join(dir, of))
		if err != nil {
			return Server{}, err
		}
		files["/keys/"+name] = string(b)
	}
	return Server{
		Name: "ssh", Port: 22,
		Image: image.Image{
			Name: "mig.test/sshd:1", Programs: []string{"/usr/sbin/sshd"}, Files: files,
			Command: []string{"sh", "-c", `mkdir -p /run/sshd /tmp/keys && cp /keys/* /tmp/keys/ && chmod 600 /tmp/keys/* && grep -q ^sshd: /etc/passwd || echo sshd:x:100:65534::/run/sshd:/bin/false >>/etc/passwd
			exec /usr/sbin/sshd -D -e -f /dev/null -h /tmp/keys/host -o AuthorizedKeysFile=/tmp/keys/user -o StrictModes=no -o UsePAM=no -o PermitRootLogin=yes`},
		},
		Work: func(ctx context.Context, c Client, ip string) (Load, error) {
			return sshWork(ctx, c, ip, filepath.Join(dir, "user"))
		},
	}, nil
}

// session is a command in a session of ssh that repeats what it is told.
type session struct {
	*Asking
	cmd  *exec.Cmd
	in   io.WriteCloser
	errs bytes.Buffer
}

func sshWork(ctx context.Context, c Client, ip, key string) (Load, error) {
	s := &session{cmd: c.Command(context.Background(), "ssh", "-i", key, "-o", "StrictHostKeyChecking=no", "-o", "UserKnownHostsFile=/dev/null", "-o", "BatchMode=yes", "root@"+ip, "cat")}
	in, err1 := s.cmd.StdinPipe()
	out, err2 := s.cmd.StdoutPipe()
	s.in, s.cmd.Stderr = in, &s.errs
	if err := errors.Join(err1, err2, s.cmd.Start()); err != nil {
		return nil, err
	}
	r := bufio.NewReader(out)
	var err error
	s.Asking, err = Ask(ctx, 1, time.Millisecond, func(context.Context) (net.Conn, error) { return nobody{}, nil }, func(_ net.Conn, _ *bufio.Reader, _, n int) error {
		want := fmt.Sprintln("line", n)
		if _, err := io.WriteString(in, want); err != nil {
			return err
		}
		got, err := r.ReadString('\n')
		if err == nil && got != want {
			err = fmt.Errorf("%q came back, want %q", got, want)
		}
		return err
	})
	if err == nil {
		err = s.Answered(10)
	}
	if err == nil {
		err = s.Err()
	}
	if err != nil {
		return nil, errors.Join(err, s.Close())
	}
	return s, nil
}

// Close ends the session in good order, or by force where nobody answers.
func (s *session) Close() error {
	defer time.AfterFunc(patience, func() { _ = s.cmd.Process.Kill() }).Stop()
	_ = s.Asking.Close()
	_ = s.in.Close()
	if err := s.cmd.Wait(); err != nil {
		return fmt.Errorf("ssh: %w: %s", err, &s.errs)
	}
	return nil
}

// nobody is the connection of a client that has none of its own.
type nobody struct{ net.Conn }

func (nobody) Close() error                { return nil }
func (nobody) SetDeadline(time.Time) error { return nil }
func (nobody) Read([]byte) (int, error)    { return 0, io.EOF }
