// SPDX-License-Identifier: Apache-2.0

package parity

import (
	"flag"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/io-mig/mig/integration/internal/daemon"
	"github.com/io-mig/mig/integration/internal/image"
	"github.com/io-mig/mig/integration/internal/itest"
)

// underTest can name runc's runtime too: differences are then the test's own.
var underTest = flag.String("runtime", itest.Mig, "runtime to compare with "+itest.Runc)

func TestMain(m *testing.M) { itest.Main(m) }

// operation is one thing people do with ctr.
type operation struct {
	name string
	do   func(p *probe)
	// only is set where one containerd's ctr cannot do it at all; why says
	// what it lacks.
	only daemon.Version
	why  string
	// chance says why the same runtime may show something else another time: it is
	// compared up to three times, and once it has to be the same.
	chance string
}

func operations() []operation {
	var all []operation
	for _, group := range [][]operation{
		runOperations, insideOperations, resourceOperations, specOperations,
		taskOperations, execOperations, errorOperations, eventOperations, faultOperations,
	} {
		all = append(all, group...)
	}
	return all
}

// TestParity runs each operation on runc's shim, then on the runtime under
// test, and compares what was seen.
func TestParity(t *testing.T) {
	if n := len(operations()); n < 60 {
		t.Fatalf("%d operations, want at least 60", n)
	}
	itest.EachVersion(t, func(t *testing.T, version daemon.Version) {
		t.Parallel()
		host := itest.Start(t, daemon.Config{Version: version}, image.Busybox)
		for _, op := range operations() {
			if op.only != "" && op.only != version {
				t.Logf("%s is for containerd %s only: %s", op.name, op.only, op.why)
				continue
			}
			t.Run(op.name, func(t *testing.T) {
				want := observe(t, host, itest.Runc, op)
				got := observe(t, host, *underTest, op)
				for n := 1; n < 3 && op.chance != "" && !cmp.Equal(want.lines, got.lines); n++ {
					t.Logf("once more: %s", op.chance)
					want, got = observe(t, host, itest.Runc, op), observe(t, host, *underTest, op)
				}
				if diff := cmp.Diff(want.lines, got.lines); diff != "" {
					t.Errorf("%s (+) differs from %s (-):\n%s", *underTest, itest.Runc, diff)
				}
				if t.Failed() {
					t.Logf("%s, in full:\n%s\n%s, in full:\n%s", itest.Runc, &want.detail, *underTest, &got.detail)
				}
			})
		}
	})
}

// observe runs one operation on one runtime and cleans up. A leak fails the
// test.
func observe(t *testing.T, host *itest.Host, runtime string, op operation) *probe {
	p := newProbe(t, host, runtime, op.name)
	defer func() {
		p.cleanUp()
		for _, leak := range host.Leaks() {
			// Nobody removes the socket of a runc's shim that was killed.
			if runtime == itest.Runc && strings.HasPrefix(leak, "socket ") {
				continue
			}
			t.Errorf("%s leaked: %s", runtime, leak)
		}
	}()
	op.do(p)
	return p
}
