// SPDX-License-Identifier: Apache-2.0

// Package enginepipe is the conversation of a supervisor with its engine
// process, over a socket pair:
//
//	supervisor                      engine
//	   job (with descriptors)  --->
//	                           <---  progress, any number of times
//	                           <---  keep and leave (with a descriptor), drop, any number of times
//	                           <---  quiesce, wake, in turn
//	                           <---  decided, any number of times
//	   quiesced, for each quiesce --->
//	   cancel, at most once    --->
//	                           <---  end (the failure, or none)
//
// Each message is a length of 4 bytes, little-endian, and as many bytes of
// JSON. The job's descriptors travel with the length. If the supervisor dies,
// the engine sees the end of the stream, which cancels the job like a message.
// If the engine dies, the supervisor sees the end of the stream before "end".
package enginepipe

import (
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"runtime"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/io-mig/mig/layers/request/job"
)

// Ask is the argument of an engine process that has no job but asks the
// destination of a move once what became of the copy.
const Ask = "ask"

// Announce is the argument, before a process id, of an engine process that has no job
// but tells neighbours where the addresses of that process's network are.
const Announce = "announce"

// MaxMessage bounds a message in bytes. A job may hold an OCI spec, which has
// at most some hundred kilobytes.
const MaxMessage = 8 << 20

// MaxFiles bounds the descriptors of a job.
const MaxFiles = 64

// Build names the sources of this program, set by the linker; empty in programs
// that were not built by the Makefile. An engine does jobs for its own build
// only: the conversation, the jobs and the frame's program are not versioned.
var Build string

// Message is one message. One field is set, but for Build.
type Message struct {
	Job *job.Job `json:"job,omitempty"`
	// Build is the supervisor's, and comes with the job.
	Build    string        `json:"build,omitempty"`
	Progress *job.Progress `json:"progress,omitempty"`
	Cancel   bool          `json:"cancel,omitempty"`
	// Keep numbers the one descriptor that comes with the message, from 1; Drop is
	// the number of one that is not needed any more.
	Keep uint64 `json:"keep,omitempty"`
	Drop uint64 `json:"drop,omitempty"`
	// Leave is for how long the one descriptor that comes with the message is to be
	// held (job.Keeper.Leave).
	Leave time.Duration `json:"leave,omitempty"`
	// Decided: see job.Decider. An engine that says so gives up by itself.
	Decided bool `json:"decided,omitempty"`
	End     *End `json:"end,omitempty"`
	// Quiesce and Wake are job.Quiescer's, Quiesced is the answer to Quiesce.
	Quiesce  bool      `json:"quiesce,omitempty"`
	Wake     *Wake     `json:"wake,omitempty"`
	Quiesced *Quiesced `json:"quiesced,omitempty"`
}

// Wake has the reason of the event's failure, if it failed.
type Wake struct {
	Reason string `json:"reason,omitempty"`
}

// Quiesced is the outcome of Quiesce: none, or a failure.
type Quiesced struct {
	Failure *job.Failure `json:"failure,omitempty"`
}

// End is the engine's last message.
type End struct {
	Failure *job.Failure `json:"failure,omitempty"`
	// Last is the final progress.
	Last job.Progress `json:"last"`
}

// Conn is one end of the conversation. Sends may overlap; receives may not.
type Conn struct {
	sock *net.UnixConn
	out  sync.Mutex
}

// NewConn takes over a stream socket of the family AF_UNIX. The descriptor is
// the Conn's, also if it fails.
func NewConn(f *os.File) (*Conn, error) {
	defer f.Close() // net.FileConn duplicates it
	c, err := net.FileConn(f)
	if err != nil {
		return nil, fmt.Errorf("descriptor %s is no socket: %w", f.Name(), err)
	}
	u, ok := c.(*net.UnixConn)
	if !ok {
		c.Close()
		return nil, fmt.Errorf("descriptor %s is no socket of the family AF_UNIX", f.Name())
	}
	return &Conn{sock: u}, nil
}

// Close ends the conversation and every call that waits in it.
func (c *Conn) Close() error { return c.sock.Close() }

// Over tells whether the peer has closed its end, or died, whatever of its messages
// was not received yet. It does not wait.
func (c *Conn) Over() bool {
	raw, err := c.sock.SyscallConn()
	if err != nil {
		return true
	}
	over := false
	err = raw.Control(func(fd uintptr) {
		p := []unix.PollFd{{Fd: int32(fd), Events: unix.POLLRDHUP}}
		for {
			_, err := unix.Poll(p, 0)
			if !errors.Is(err, unix.EINTR) {
				over = p[0].Revents != 0 // the ends that are reported in any case, too
				return
			}
		}
	})
	return over || err != nil
}

// Send writes one message; the files stay the caller's. A peer that does not
// read holds it up for at most the time-out, after which nothing more can be sent.
func (c *Conn) Send(m Message, timeout time.Duration, files ...*os.File) error {
	body, err := json.Marshal(m)
	if err != nil {
		return fmt.Errorf("encode message: %w", err)
	}
	if len(body) > MaxMessage || len(files) > MaxFiles {
		return fmt.Errorf("a message of %d bytes and %d descriptors exceeds the limit of %d and %d", len(body), len(files), MaxMessage, MaxFiles)
	}
	head := binary.LittleEndian.AppendUint32(nil, uint32(len(body)))
	rights, err := rightsOf(files)
	if err != nil {
		return err
	}
	defer runtime.KeepAlive(files)
	c.out.Lock()
	defer c.out.Unlock()
	if err := c.sock.SetWriteDeadline(time.Now().Add(timeout)); err != nil {
		return err
	}
	// A stream socket may split the write, but never the four bytes from the
	// descriptors that are sent with them.
	if n, _, err := c.sock.WriteMsgUnix(head, rights, nil); err != nil || n != len(head) {
		return c.broken(errors.Join(err, shortWrite(n, len(head))))
	}
	if _, err := c.sock.Write(body); err != nil {
		return c.broken(err)
	}
	return nil
}

// rightsOf reads the numbers of the descriptors without File.Fd, which would
// make the open file descriptions blocking for everyone who shares them.
func rightsOf(files []*os.File) ([]byte, error) {
	if len(files) == 0 {
		return nil, nil
	}
	fds := make([]int, len(files))
	for i, f := range files {
		raw, err := f.SyscallConn()
		if err == nil {
			err = raw.Control(func(fd uintptr) { fds[i] = int(fd) })
		}
		if err != nil {
			return nil, fmt.Errorf("descriptor %d of a job (%s): %w", i, f.Name(), err)
		}
	}
	return unix.UnixRights(fds...), nil
}

func shortWrite(n, want int) error {
	if n == want {
		return nil
	}
	return io.ErrShortWrite
}

// broken ends the sending half of a conversation in which half a message may
// have been sent. The receiving half stays: the peer's last words may wait there.
func (c *Conn) broken(err error) error {
	c.sock.CloseWrite()
	return fmt.Errorf("send to the peer: %w", err)
}

// Receive reads one message and the descriptors that came with it, which are
// close-on-exec and the caller's. io.EOF is the end between two messages.
func (c *Conn) Receive() (m Message, files []*os.File, err error) {
	defer func() {
		if err != nil {
			closeAll(files)
			files = nil
		}
	}()
	var head [4]byte
	files, err = c.head(head[:])
	if err != nil {
		return m, files, err
	}
	n := binary.LittleEndian.Uint32(head[:])
	if n == 0 || n > MaxMessage {
		return m, files, fmt.Errorf("a message of %d bytes is announced, at most %d are allowed", n, MaxMessage)
	}
	body := make([]byte, n)
	if _, err := io.ReadFull(c.sock, body); err != nil {
		return m, files, fmt.Errorf("message of %d bytes: %w", n, unexpected(err))
	}
	if err := json.Unmarshal(body, &m); err != nil {
		return m, files, fmt.Errorf("message of %d bytes: %w", n, err)
	}
	return m, files, nil
}

// head reads the length and what came with it.
func (c *Conn) head(b []byte) (files []*os.File, err error) {
	oob := make([]byte, unix.CmsgSpace(MaxFiles*4))
	for got := 0; got < len(b); {
		n, oobn, flags, _, err := c.sock.ReadMsgUnix(b[got:], oob)
		more, perr := parseRights(oob[:oobn])
		files = append(files, more...)
		switch {
		case perr != nil:
			return files, perr
		case flags&unix.MSG_CTRUNC != 0:
			return files, fmt.Errorf("more than %d descriptors came with a message", MaxFiles)
		case err != nil && (got > 0 || !errors.Is(err, io.EOF)):
			return files, unexpected(err)
		case err != nil || n == 0: // the end; ReadMsgUnix reports it as no bytes
			if got > 0 {
				return files, io.ErrUnexpectedEOF
			}
			return files, io.EOF
		}
		got += n
	}
	return files, nil
}

func parseRights(oob []byte) (files []*os.File, err error) {
	if len(oob) == 0 {
		return nil, nil
	}
	msgs, err := unix.ParseSocketControlMessage(oob)
	if err != nil {
		return nil, fmt.Errorf("parse control message: %w", err)
	}
	for i := range msgs {
		fds, err := unix.ParseUnixRights(&msgs[i])
		if err != nil {
			continue // not descriptors
		}
		for _, fd := range fds {
			files = append(files, os.NewFile(uintptr(fd), fmt.Sprintf("passed descriptor %d", fd)))
		}
	}
	return files, nil
}

func unexpected(err error) error {
	if errors.Is(err, io.EOF) {
		return io.ErrUnexpectedEOF
	}
	return err
}

func closeAll(files []*os.File) {
	for _, f := range files {
		f.Close()
	}
}
