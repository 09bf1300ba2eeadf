// SPDX-License-Identifier: Apache-2.0

package control

import "github.com/io-mig/mig/spec/record"

// markName is the reserved subsystem name of control's own records.
const markName = "control"

// kindSwitch is the kind of the record that ends what is needed before the copy
// may run. Its payload is one byte: 1 if state was left behind and follows, 0 if
// the stream ends here. A stream without a mark is needed whole.
const kindSwitch = 1

func switchMark(left bool) *record.Record {
	payload := []byte{0}
	if left {
		payload[0] = 1
	}
	return &record.Record{Header: record.Header{Subsystem: markName, Kind: kindSwitch}, Payload: payload}
}
