// SPDX-License-Identifier: Apache-2.0

package shim

import "testing"

func TestAllowedHost(t *testing.T) {
	const annotation = "beta,10.0.0.2:7117?tls=/x&downtime=20ms"
	for host, want := range map[string]string{
		"beta": "mig://beta", "10.0.0.2:7117": "mig://10.0.0.2:7117?tls=/x&downtime=20ms",
		"": "", "gamma": "", "10.0.0.2": "", "beta?tls=/y": "", "beta,10.0.0.2:7117": "",
	} {
		got, err := allowedHost(annotation, host)
		if got != want || (err == nil) != (want != "") {
			t.Errorf("%q: %q, %v", host, got, err)
		}
	}
}
