// SPDX-License-Identifier: Apache-2.0

//go:build linux

package tcprepair

import (
	"errors"

	"golang.org/x/sys/unix"

	"github.com/io-mig/mig/layers/kernel/target"
)

// Mute puts the marked connections of the processes into repair mode, in which their end
// tells the other ends nothing: those go on with a copy. It is for the supervisor of an
// engine that has ended, before it ends the original; the container must be frozen. A
// process that is gone has no sockets.
func Mute(pids []int) error {
	var errs []error
	for _, pid := range pids {
		errs = append(errs, eachSocket(target.Living(pid), muteOne))
	}
	return errors.Join(errs...)
}

func muteOne(own int) error {
	if p, err := unix.GetsockoptInt(own, unix.SOL_SOCKET, unix.SO_PROTOCOL); err != nil || p != unix.IPPROTO_TCP || !hasMark(own) {
		return nil
	}
	_, err := Enter(own)
	return err
}
