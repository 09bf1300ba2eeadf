// SPDX-License-Identifier: Apache-2.0

package migrate

import "strings"

// optionPrefix marks annotations that are policies for checkpoints and
// restores; what follows is the option's name, for example "io.mig/tcp".
const optionPrefix = "io.mig/"

// optionTCP says what becomes of established connections: see the package
// socket.
const optionTCP = "tcp"

// options are the policies that a container's annotations choose.
func options(annotations map[string]string) map[string]string {
	out := map[string]string{}
	for k, v := range annotations {
		if name, ok := strings.CutPrefix(k, optionPrefix); ok {
			out[name] = v
		}
	}
	return out
}
