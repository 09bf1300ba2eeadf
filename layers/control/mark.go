// SPDX-License-Identifier: Apache-2.0

package control

import "github.com/io-mig/mig/spec/record"

// markName is the reserved subsystem name of control's own records.
const markName = "control"

// kindSwitch is the kind of the record that divides a stream with state left
// behind: every record before it is needed before the copy may run. A stream
// without one is needed whole.
const kindSwitch = 1

func switchMark() *record.Record {
	return &record.Record{Header: record.Header{Subsystem: markName, Kind: kindSwitch}}
}
