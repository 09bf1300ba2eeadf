// SPDX-License-Identifier: Apache-2.0

package request

import (
	"bytes"
	"context"
	"fmt"
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
	var out, errs bytes.Buffer
	cmd := p.program()
	cmd.Args = append(cmd.Args, enginepipe.Ask)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = strings.NewReader(move), &out, &errs
	p.surroundings(cmd)
	release, err := p.spawn(cmd)
	if err != nil {
		return 0, false, fmt.Errorf("start the engine %s: %w", cmd.Args[0], err)
	}
	stop := context.AfterFunc(ctx, func() { _ = cmd.Process.Kill() })
	err = cmd.Wait()
	stop()
	release()
	if err != nil {
		return 0, false, fmt.Errorf("the engine that asked: %w: %s", err, bytes.TrimSpace(errs.Bytes()))
	}
	return resolve.Understand(out.String())
}
