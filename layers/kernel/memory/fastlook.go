// SPDX-License-Identifier: Apache-2.0

package memory

// altered selects what was not protected, and not there before, as it is now: what was
// written, what is not tracked, and what is not there (any more), also where the page
// table is gone as a whole (madvise(2) frees them). Swapped pages are among it.
var altered = selection{any: pageIsWritten, anyNot: pageIsPresent}

// lookAgain is look of what was looked at before and protected then, at a quarter of
// the cost: filled is what was there. A scan that selects nothing of most page tables
// has nothing to note of them. What it does select is looked at more closely, and all
// the rest is as it was.
func lookAgain(pm *pagemap, ranges, filled pageSet) (pages, error) {
	var changed pageSet
	w := walk{selection: altered}
	for _, x := range ranges {
		if err := pm.walk(x.start, x.end, w, func(r pageRegion) { changed = changed.put(run{r.start, r.end}) }); err != nil {
			return pages{}, err
		}
	}
	// What lost its tracking may have kept its marks: see round.register.
	lost, err := pm.untracked(ranges)
	if err != nil {
		return pages{}, err
	}
	changed = changed.union(lost)
	seen, err := look(pm, changed, 0)
	if err != nil {
		return pages{}, err
	}
	seen.present = seen.present.union(filled.intersect(ranges).subtract(changed))
	return seen, nil
}
