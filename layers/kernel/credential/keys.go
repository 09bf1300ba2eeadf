// SPDX-License-Identifier: Apache-2.0

package credential

import (
	"errors"
	"fmt"
	"io/fs"
	"strconv"
	"strings"

	"github.com/io-mig/mig/layers/kernel/procfs"
	"github.com/io-mig/mig/layers/kernel/target"
	"github.com/io-mig/mig/spec/record"
)

// lostKeys warns of keys in the session keyring that the runtime has made for
// the container. /proc/keys shows keyrings with how much is in them to their
// owner, who is the container's root: nothing is asked of the container, whose
// processes might be given a keyring by a question. It does not tell whose
// other keyrings are (those of users, threads, processes, and sessions that a
// program has joined).
func (s *Subsystem) lostKeys() ([]record.Finding, error) {
	src := s.env.Source
	if src.SessionKeyring == "" {
		return nil, nil
	}
	uid, _, ok, err := target.HostOwner(procfs.Host().Process(src.Init), 0, 0)
	if err != nil || !ok {
		return nil, err
	}
	var list []procfs.Key
	err = target.AsFileUser(uid, func() (err error) {
		list, err = procfs.Host().Keys()
		return err
	})
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil // a kernel without keys
	}
	if err != nil {
		return nil, err
	}
	n := keysIn(list, src.SessionKeyring, uid)
	if n == 0 {
		return nil, nil
	}
	return []record.Finding{{
		Pid: src.Init, FD: -1, Subsystem: Name, Warning: true, What: fmt.Sprintf("%d keys of the session keyring", n),
		Why: "they are lost, the copy's keyring is empty", Remedy: "have the program add them again (add_key(2))",
	}}, nil
}

// keysIn is how many keys a user's keyring with that name has.
func keysIn(list []procfs.Key, name string, uid uint32) int {
	for _, k := range list {
		size, found := strings.CutPrefix(k.Describe, name+": ")
		if !found || k.Type != "keyring" || k.UID != uid {
			continue
		}
		// "empty" is no number.
		if n, err := strconv.Atoi(size); err == nil && n > 0 {
			return n
		}
	}
	return 0
}
