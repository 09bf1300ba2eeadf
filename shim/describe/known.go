// SPDX-License-Identifier: Apache-2.0

package describe

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/io-mig/mig/layers/control"
	"github.com/io-mig/mig/layers/request/policy"
	"github.com/io-mig/mig/spec/record"
)

// OptionStrategy is the annotation, without its prefix, for the order of a checkpoint
// into an image: auto, stop-and-copy or pre-copy.
const OptionStrategy = "checkpoint-strategy"

// known are the annotations that mean something, without their prefix: the policies,
// those that are no matter of a single request, and the marks of a container that has
// just come.
var known = append(policy.Names(),
	"agent", "agent-checkpoint", "agent-migrate", "leave-running", "semundo", OptionStrategy,
	"incoming", "incoming-network", "incoming-policies", "from", "tls", "insecure")

// CheckOptions names annotations that have no effect since they are misspelt, as
// warnings, and a strategy that every checkpoint would be refused for. Other values are
// checked by the subsystems that obey them.
func CheckOptions(options map[string]string) []record.Finding {
	var out []record.Finding
	for _, name := range slices.Sorted(maps.Keys(options)) {
		if !slices.Contains(known, name) {
			out = append(out, record.Finding{
				FD: -1, Subsystem: "annotations", What: OptionPrefix + name, Warning: true,
				Why: "there is no annotation of this name, so that it has no effect",
			})
		}
	}
	orders := []string{control.Auto.Name, control.StopAndCopy.Name, control.PreCopy.Name}
	if s, ok := options[OptionStrategy]; ok && !slices.Contains(orders, s) {
		out = append(out, record.Finding{
			FD: -1, Subsystem: "annotations", What: OptionPrefix + OptionStrategy,
			Why: fmt.Sprintf("it is %q", s), Remedy: "choose " + strings.Join(orders, ", "),
		})
	}
	return out
}
