// SPDX-License-Identifier: Apache-2.0

package procfs

import (
	"bytes"
	"testing"
)

func TestParseKeys(t *testing.T) {
	equal(t, must(ParseKeys(golden(t, "keys")))(t), []Key{
		{0x39bed2d, 0, "user", "k1: 3"}, {0x4537121, 0, "keyring", "_uid_ses.0: 1"}, {0x25075711, 0, "keyring", ".dns_resolver: empty"},
		{0x3c3f45a2, 200000, "keyring", "_ses.web: 12"}, {0xba4f001, 1000, "user", "two"},
	})
	refuses(t, ParseKeys, "039bed2d I--Q---", "")
}

func FuzzKeys(f *testing.F) {
	fuzz(f, ParseKeys, func(t *testing.T, data []byte, list []Key) {
		if len(list) > bytes.Count(data, []byte("\n")) {
			t.Fatalf("%d keys", len(list))
		}
	}, "keys")
}
