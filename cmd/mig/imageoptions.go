// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"

	"github.com/spf13/pflag"

	"github.com/io-mig/mig/layers/request"
	"github.com/io-mig/mig/layers/request/job"
)

// imageOptions are the flags of what saves a container and what restores it.
type imageOptions struct {
	namespace, containerd, requests string
	json                            bool
}

func (o *imageOptions) add(f *pflag.FlagSet) {
	f.StringVarP(&o.namespace, "namespace", "n", fromEnv("CONTAINERD_NAMESPACE", "default"), "containerd's namespace of the container")
	f.StringVar(&o.containerd, "containerd", fromEnv("CONTAINERD_ADDRESS", "/run/containerd/containerd.sock"), "containerd's socket")
	f.StringVar(&o.requests, "dir", request.DefaultDir, "directory of mig's state")
	f.BoolVar(&o.json, "json", false, "print one JSON object, the request's status")
}

// last is the container's last request of that kind with this image, which has
// succeeded.
func (o *imageOptions) last(kind job.Kind, id, dir string) (*request.Status, error) {
	store, err := request.OpenStore(o.requests, o.namespace)
	if err != nil {
		return nil, err
	}
	list, err := store.List()
	if err != nil {
		return nil, err
	}
	var found *request.Status
	for _, st := range list {
		if st.Kind == kind && st.Container == id && st.Image == dir && (found == nil || found.Created.Before(st.Created)) {
			found = st
		}
	}
	if found == nil {
		return nil, fmt.Errorf("the %s of container %s with the image %s has succeeded, but its request has no status in %s (--dir names another directory)", kind, id, dir, o.requests)
	}
	return found, nil
}
