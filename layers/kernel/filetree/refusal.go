// SPDX-License-Identifier: Apache-2.0

package filetree

// Refusal is a file that cannot be carried: which one, why, and a remedy.
type Refusal struct{ Path, Why, Remedy string }

func (r *Refusal) Error() string {
	text := r.Path + ": " + r.Why
	if r.Remedy != "" {
		text += " (" + r.Remedy + ")"
	}
	return text
}
