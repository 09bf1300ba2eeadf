// SPDX-License-Identifier: Apache-2.0

package request

import (
	"bytes"
	"context"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/io-mig/mig/layers/control/handover"
	"github.com/io-mig/mig/layers/request/enginepipe"
	"github.com/io-mig/mig/layers/request/resolve"
)

// askTimeout bounds a question, with the start of its process.
const askTimeout = time.Minute

// Ask has a process of its own ask the destination of the move with this address
// once what became of the copy; whole is whether a copy that runs has everything.
// A supervisor that asks itself would need all of TLS in its program, for
// something that happens to hardly any. Errors: journal.ErrUnknown, or the
// destination could not be asked.
func (p *ProcessEngine) Ask(ctx context.Context, move string) (said handover.Message, whole bool, err error) {
	ctx, cancel := context.WithTimeout(ctx, askTimeout)
	defer cancel()
	out, err := p.run(ctx, move, enginepipe.Ask)
	if err != nil {
		return 0, false, fmt.Errorf("the engine that asked: %w", err)
	}
	return resolve.Understand(out)
}

// announceTimeout bounds an announcement, with the start of its process.
const announceTimeout = 5 * time.Second

// Announce has a process of its own tell the neighbours of a container, which is that
// of a process, where its addresses are: the destination of a move that has come to
// nothing may have told them otherwise.
func (p *ProcessEngine) Announce(ctx context.Context, pid int) error {
	ctx, cancel := context.WithTimeout(ctx, announceTimeout)
	defer cancel()
	if _, err := p.run(ctx, "", enginepipe.Announce, strconv.Itoa(pid)); err != nil {
		return fmt.Errorf("the engine that announced: %w", err)
	}
	return nil
}

// run runs an engine process that has no job, and returns what it says.
func (p *ProcessEngine) run(ctx context.Context, input string, args ...string) (string, error) {
	var out, errs bytes.Buffer
	cmd := p.program()
	cmd.Args = append(cmd.Args, args...)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = strings.NewReader(input), &out, &errs
	p.surroundings(cmd)
	release, err := p.spawn(cmd)
	if err != nil {
		return "", fmt.Errorf("start %s: %w", cmd.Args[0], err)
	}
	stop := context.AfterFunc(ctx, func() { _ = cmd.Process.Kill() })
	err = cmd.Wait()
	stop()
	release()
	if err != nil {
		return "", fmt.Errorf("%w: %s", err, bytes.TrimSpace(errs.Bytes()))
	}
	return out.String(), nil
}
