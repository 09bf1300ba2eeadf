// SPDX-License-Identifier: Apache-2.0

package memory

// pageSet is a set of pages: ranges in ascending order, disjoint and not
// adjacent. The operations below cost a walk through both.
type pageSet []run

// put appends a range that does not begin before the end of the last one.
func (s pageSet) put(r run) pageSet {
	switch n := len(s); {
	case r.start >= r.end:
		return s
	case n > 0 && s[n-1].end >= r.start:
		s[n-1].end = max(s[n-1].end, r.end)
		return s
	}
	return append(s, r)
}

func (s pageSet) bytes() (n uint64) {
	for _, r := range s {
		n += r.bytes()
	}
	return n
}

// union holds the pages of either.
func (s pageSet) union(o pageSet) pageSet {
	out := make(pageSet, 0, len(s)+len(o))
	for len(s) > 0 || len(o) > 0 {
		if len(o) == 0 || len(s) > 0 && s[0].start <= o[0].start {
			out, s = out.put(s[0]), s[1:]
			continue
		}
		out, o = out.put(o[0]), o[1:]
	}
	return out
}

// intersect holds the pages that are in both.
func (s pageSet) intersect(o pageSet) pageSet {
	var out pageSet
	for len(s) > 0 && len(o) > 0 {
		out = out.put(run{max(s[0].start, o[0].start), min(s[0].end, o[0].end)})
		if s[0].end < o[0].end {
			s = s[1:]
		} else {
			o = o[1:]
		}
	}
	return out
}

// subtract holds the pages of s that are not in o.
func (s pageSet) subtract(o pageSet) pageSet {
	var out pageSet
	for _, r := range s {
		for len(o) > 0 && o[0].end <= r.start {
			o = o[1:]
		}
		for i := 0; i < len(o) && o[i].start < r.end; i++ {
			out = out.put(run{r.start, o[i].start})
			r.start = o[i].end
		}
		out = out.put(r)
	}
	return out
}
