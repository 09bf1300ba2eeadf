// SPDX-License-Identifier: Apache-2.0

package smoke

import (
	"encoding/json"
	"os"
	"strings"
	"testing"
)

// Two containers with one group are in one shim, which goes with the last.
func TestGroup(t *testing.T) {
	onEach(t, func(t *testing.T, d *daemon) {
		for _, id := range []string{"one", "two"} {
			d.withSpec(id, func(spec map[string]any) {
				spec["annotations"] = map[string]string{"io.containerd.runc.v2.group": "shared"}
			}, "sleep", "1000")
		}
		shim := d.shimPid("one")
		if got := d.shimPid("two"); got != shim {
			t.Errorf("shims %s and %s, want one", shim, got)
		}
		d.remove("one")
		d.expectStatus("two", "RUNNING")
		if out, code := d.try("task", "exec", "--exec-id", "e1", "two", "echo", "on"); code != 0 || out != "on\n" {
			t.Errorf("exec: exit status %d, output %q", code, out)
		}
		d.stop()
		d.start()
		d.expectStatus("two", "RUNNING")
		d.remove("two")
		d.eventually("the shim ends", func() bool { return !exists("/proc/" + shim) })
	})
}

// Without a pid namespace the init's companions do not die with it, and the
// orphans of the container are the shim's to reap.
func TestSharedPidNamespace(t *testing.T) {
	onEach(t, func(t *testing.T, d *daemon) {
		d.withSpec("one", func(spec map[string]any) {
			linux := spec["linux"].(map[string]any)
			var keep []any
			for _, ns := range linux["namespaces"].([]any) {
				if ns.(map[string]any)["type"] != "pid" {
					keep = append(keep, ns)
				}
			}
			linux["namespaces"] = keep
		}, "sh", "-c", "(sh -c 'true & exec sleep 1' &) ; (sleep 1000 &) ; sleep 1000")
		shim := d.shimPid("one")
		d.eventually("orphans are reaped", func() bool { return len(zombies(shim)) == 0 && len(children(shim)) <= 2 })
		kill(t, d.pid("one"))
		d.eventually("stopped", func() bool { return d.status("one") == "STOPPED" })
		d.eventually("all processes are gone", func() bool { return len(children(shim)) == 0 })
	})
}

// withSpec runs a detached container whose spec was edited.
func (d *daemon) withSpec(id string, edit func(map[string]any), program ...string) {
	d.t.Helper()
	// ctr writes no spec without a container: make one and read it.
	args := []string{"container", "create", "--runtime", "io.mig.v1", "--env", "PATH=/bin", "--rootfs", d.file("rootfs"), id + "-template", "sh"}
	d.must(args...)
	var spec map[string]any
	if err := json.Unmarshal([]byte(d.must("container", "info", "--spec", id+"-template")), &spec); err != nil {
		d.t.Fatal(err)
	}
	d.must("container", "rm", id+"-template")
	spec["process"].(map[string]any)["args"] = program
	edit(spec)
	spec["linux"].(map[string]any)["cgroupsPath"] = "/" + d.namespace + "/" + id
	data, err := json.Marshal(spec)
	if err != nil {
		d.t.Fatal(err)
	}
	config := d.file(id + ".json")
	write(d.t, config, string(data))
	d.must("run", "-d", "--runtime", "io.mig.v1", "--config", config, id)
}

// children are the processes whose parent is pid.
func children(pid string) (pids []string) {
	for _, path := range globs("/proc/" + pid + "/task/*/children") {
		data, _ := os.ReadFile(path)
		pids = append(pids, strings.Fields(string(data))...)
	}
	return pids
}

func zombies(pid string) (pids []string) {
	for _, c := range children(pid) {
		data, _ := os.ReadFile("/proc/" + c + "/stat")
		if i := strings.LastIndex(string(data), ") "); i >= 0 && strings.HasPrefix(string(data[i+2:]), "Z") {
			pids = append(pids, c)
		}
	}
	return pids
}
