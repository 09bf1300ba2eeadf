// SPDX-License-Identifier: Apache-2.0

package handover

// Destination is the destination's side. Its zero value is a copy that is being
// built.
type Destination struct {
	// Entry is the state; EntryNone until COMMIT or the end.
	Entry Entry
	// Built: READY was said.
	Built bool
}

// RecoverDestination is the destination after a crash of its engine or host.
// runs tells whether the copy runs whole: a frame dies with its engine, but
// tasks that were let go do not.
func RecoverDestination(last Entry, runs bool) (Destination, []Action) {
	d := Destination{Entry: last}
	switch {
	case last == EntryNone:
		return d.abort()
	case last == EntryCommitted && runs:
		d.Entry = EntryRunning
		return d, []Action{journal(EntryRunning), send(Running)}
	case last == EntryCommitted:
		return d.lose()
	case last == EntryAborted:
		return d, []Action{{Verb: Discard}, send(Aborted)}
	}
	return d, d.answer()
}

// Input handles what happens here.
func (d Destination) Input(in Input) (Destination, []Action) {
	switch {
	case in == Prepared && d.Entry == EntryNone:
		d.Built = true
		return d, []Action{send(Ready)}
	case in == Failed && d.Entry == EntryNone, in == NotRun && d.Entry == EntryCommitted:
		return d.abort()
	case in == PartlyRun && d.Entry == EntryCommitted:
		return d.lose()
	case in == Met:
		return d, d.answer()
	}
	return d, nil
}

// Message handles what the source says.
func (d Destination) Message(m Message) (Destination, []Action) {
	if d.Entry != EntryNone {
		return d, d.answer() // whatever it was, this is how things stand
	}
	switch {
	case m == Abort:
		return d.abort()
	case m == Commit && d.Built:
		d.Entry = EntryCommitted
		return d, []Action{journal(EntryCommitted), {Verb: Run}, journal(EntryRunning), send(Running)}
	}
	return d, nil
}

// Ran is the state when the actions of COMMIT were done.
func (d Destination) Ran() Destination {
	if d.Entry == EntryCommitted {
		d.Entry = EntryRunning
	}
	return d
}

// answer says how things stand.
func (d Destination) answer() []Action {
	switch d.Entry {
	case EntryNone:
		if d.Built {
			return []Action{send(Ready)}
		}
	case EntryRunning:
		return []Action{send(Running)}
	case EntryAborted:
		return []Action{send(Aborted)}
	case EntryLost:
		return []Action{send(Lost)}
	}
	return nil
}

func (d Destination) abort() (Destination, []Action) {
	d.Entry = EntryAborted
	return d, []Action{journal(EntryAborted), {Verb: Discard}, send(Aborted)}
}

func (d Destination) lose() (Destination, []Action) {
	d.Entry = EntryLost
	return d, []Action{journal(EntryLost), {Verb: Discard}, send(Lost)}
}
