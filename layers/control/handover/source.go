// SPDX-License-Identifier: Apache-2.0

package handover

// Source is the source's side. Its zero value is a move that is being prepared.
type Source struct {
	// Entry is the state: EntryNone while COMMIT was not sent.
	Entry Entry
	// Sealed and PeerReady are the two conditions of COMMIT.
	Sealed, PeerReady bool
}

// RecoverSource is the source after a crash. Without an entry, COMMIT was never
// sent and the container goes on.
func RecoverSource(last Entry) (Source, []Action) {
	s := Source{Entry: last}
	switch last {
	case EntryNone:
		return s.keep()
	case EntryKept:
		return s, []Action{{Verb: Thaw}, send(Abort)}
	case EntryMoved:
		return s, []Action{{Verb: End}}
	}
	return s, []Action{send(Commit)}
}

// Input handles what happens here.
func (s Source) Input(in Input) (Source, []Action) {
	switch {
	case in == Prepared && s.Entry == EntryNone:
		s.Sealed = true
		return s.maybeCommit()
	case in == Failed && s.Entry == EntryNone, in == Forced && s.Entry == EntryCommitted:
		return s.keep()
	case in == Met && s.Entry == EntryCommitted:
		return s, []Action{send(Commit)}
	}
	return s, nil
}

// Message handles what the destination says.
func (s Source) Message(m Message) (Source, []Action) {
	switch s.Entry {
	case EntryNone:
		switch m {
		case Ready:
			s.PeerReady = true
			return s.maybeCommit()
		case Aborted:
			return s.keep()
		}
	case EntryCommitted:
		switch m {
		case Ready: // COMMIT was lost
			return s, []Action{send(Commit)}
		case Running:
			s.Entry = EntryMoved
			return s, []Action{journal(EntryMoved), {Verb: End}}
		case Aborted:
			s.Entry = EntryKept
			return s, []Action{journal(EntryKept), {Verb: Thaw}}
		}
	case EntryKept:
		switch m {
		case Ready:
			return s, []Action{send(Abort)}
		case Running:
			return s, []Action{{Verb: Alarm}}
		}
	}
	return s, nil
}

func (s Source) maybeCommit() (Source, []Action) {
	if !s.Sealed || !s.PeerReady {
		return s, nil
	}
	s.Entry = EntryCommitted
	return s, []Action{journal(EntryCommitted), send(Commit)}
}

func (s Source) keep() (Source, []Action) {
	s.Entry = EntryKept
	return s, []Action{journal(EntryKept), {Verb: Thaw}, send(Abort)}
}
