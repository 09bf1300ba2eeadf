// SPDX-License-Identifier: Apache-2.0

package shim

import (
	"fmt"

	"github.com/containerd/errdefs"

	"github.com/io-mig/mig/layers/request/address"
)

// The annotations of a container that is on its way to this host. Who makes the
// container (migd) sets them and takes them away when it has arrived.
const (
	// annotationIncoming is the path of the socket at which its engine gets the
	// move's connections.
	annotationIncoming = "io.mig/incoming"
	// annotationTLS is the directory of this host's certificate;
	// annotationInsecure with "true" takes its place in a loopback test.
	annotationTLS      = "io.mig/tls"
	annotationInsecure = "io.mig/insecure"
	// annotationFrom is the host that it comes from.
	annotationFrom = "io.mig/from"
)

// imageOf is what a container is restored from: the checkpoint that its create
// names, or the move that its annotations name. Empty: it is a new one.
func imageOf(checkpoint string, annotations map[string]string) (string, error) {
	socket := annotations[annotationIncoming]
	if socket == "" {
		return checkpoint, nil
	}
	if checkpoint != "" {
		return "", fmt.Errorf("the container is both restored from %s and, by its annotation %s, moved here: %w", checkpoint, annotationIncoming, errdefs.ErrInvalidArgument)
	}
	in := address.Incoming{Socket: socket, TLS: annotations[annotationTLS], Insecure: annotations[annotationInsecure] == "true", From: annotations[annotationFrom]}
	image := in.String()
	if _, err := address.ParseIncoming(image); err != nil {
		return "", fmt.Errorf("annotation %s: %w: %w", annotationIncoming, err, errdefs.ErrInvalidArgument)
	}
	return image, nil
}
