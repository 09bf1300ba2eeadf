// SPDX-License-Identifier: Apache-2.0

package stdio

import "os"

// StartInput opens the FIFO of standard input and copies from it. It belongs
// right before the process runs, not earlier: ctr writes as soon as somebody
// reads, and a client that has come to the end of its input before it knows of
// the task never says CloseIO.
func (s *Streams) StartInput() error {
	if s.input == nil {
		return nil
	}
	in, err := openFIFOInput(s.config.URIs.Stdin)
	if err != nil {
		return err
	}
	s.mu.Lock()
	if s.closed {
		s.mu.Unlock()
		in.close()
		return os.ErrClosed
	}
	s.stdin = in
	s.closers = append(s.closers, in.close)
	eof := s.eof
	s.mu.Unlock()
	if eof {
		in.releaseHold()
	}
	go func() {
		copyAll("stdin", s.input, in.reader)
		in.close()
		s.inputEnded()
	}()
	return nil
}

// CloseStdin is the task API's CloseIO: the process reads the end of its input
// once the clients have closed theirs too.
func (s *Streams) CloseStdin() error {
	s.mu.Lock()
	s.eof = true
	in := s.stdin
	s.mu.Unlock()
	if in == nil {
		return nil
	}
	return in.releaseHold()
}
