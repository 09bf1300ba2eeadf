// SPDX-License-Identifier: Apache-2.0

package target

import "testing"

// What is there is found before a file of huge pages is given up, and no sooner.
func TestHoldings(t *testing.T) {
	const page = 4 * ContentBytes
	h := holdings{page: page, there: 2 * page}
	for _, c := range []struct {
		at    int64
		holds bool
		all   bool // before it is read
	}{
		{0, false, false}, {ContentBytes, true, false}, {2 * ContentBytes, true, false}, {3 * ContentBytes, false, false},
		{page, false, false}, {2 * page, false, false}, {3*page - ContentBytes, false, false},
		{3 * page, true, false}, {3*page + ContentBytes, false, false}, {4*page - ContentBytes, true, false},
		{4 * page, false, true}, {100 * page, false, true},
	} {
		if all := h.all(c.at); all != c.all {
			t.Errorf("at %#x: all is %v", c.at, all)
		}
		if c.holds {
			h.note(c.at)
		}
	}
	if h = (holdings{page: page}); !h.all(0) {
		t.Error("an empty file is read")
	}
	// More may come than there was.
	h = holdings{page: page, there: page}
	h.note(0)
	if h.there += page; h.all(page) {
		t.Error("a page that came later is not read")
	}
}
