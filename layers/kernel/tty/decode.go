// SPDX-License-Identifier: Apache-2.0

package tty

import (
	"errors"
	"fmt"

	"google.golang.org/protobuf/proto"

	"github.com/io-mig/mig/layers/kernel/target"
	"github.com/io-mig/mig/spec/record"
	"github.com/io-mig/mig/spec/state"
)

const (
	// controlCharacters is NCCS of include/uapi/asm-generic/termbits.h.
	controlCharacters = 19
	// maxUnread bounds what is unread in one direction, in bytes: N_TTY's
	// buffer of 4 KiB and the port's of 64 KiB (drivers/tty/tty_buffer.c).
	maxUnread = 128 << 10
)

func decodeTerminal(r *record.Record) (*state.Terminal, error) {
	m := &state.Terminal{}
	if err := proto.Unmarshal(r.Payload, m); err != nil {
		return nil, err
	}
	switch {
	case r.Entity == 0 || r.Entity > target.MaxTerminals:
		return nil, errors.New("terminals are numbered from 1")
	case len(m.ControlCharacters) != controlCharacters:
		return nil, fmt.Errorf("%d control characters", len(m.ControlCharacters))
	case m.Mode&^0o777 != 0:
		return nil, fmt.Errorf("mode %#o", m.Mode)
	case len(m.Input) > maxUnread || len(m.Output) > maxUnread:
		return nil, fmt.Errorf("%d bytes of input and %d of output are beyond the limit of %d", len(m.Input), len(m.Output), maxUnread)
	}
	return m, nil
}

func decodeEnd(r *record.Record) (*state.TerminalEnd, error) {
	m := &state.TerminalEnd{}
	if err := proto.Unmarshal(r.Payload, m); err != nil {
		return nil, err
	}
	if r.Entity == 0 {
		return nil, errors.New("descriptions are numbered from 1")
	}
	if m.Index >= target.MaxTerminals || m.Flags&^endFlags != 0 || m.Flags&accessMode == accessMode {
		return nil, fmt.Errorf("end of terminal %d with flags %#o", m.Index, m.Flags)
	}
	path, own := m.Path, target.SlavePath(int(m.Index))
	switch m.Side {
	case state.TerminalSide_TERMINAL_SIDE_MASTER:
		if path == "" {
			return m, nil
		}
	case state.TerminalSide_TERMINAL_SIDE_SLAVE:
		if path == own || path == consolePath {
			return m, nil
		}
	case state.TerminalSide_TERMINAL_SIDE_CONTROLLING:
		if path == controllingPath {
			return m, nil
		}
	}
	return nil, fmt.Errorf("%v of terminal %d opened as %q", m.Side, m.Index, path)
}
