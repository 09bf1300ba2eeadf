// SPDX-License-Identifier: Apache-2.0

package medium

// Wrapper is a medium around another one.
type Wrapper interface {
	// Unwrap returns the medium inside.
	Unwrap() Medium
}

// As finds the first medium, from the outside in, that is a T: what a medium can
// do beside moving records.
func As[T any](m Medium) (T, bool) {
	for m != nil {
		if t, ok := m.(T); ok {
			return t, true
		}
		w, ok := m.(Wrapper)
		if !ok {
			break
		}
		m = w.Unwrap()
	}
	var none T
	return none, false
}
