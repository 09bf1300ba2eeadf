// SPDX-License-Identifier: Apache-2.0

package shim

import (
	"fmt"
	"strconv"
	"strings"

	"github.com/containerd/containerd/api/types/runc/options"
	"github.com/containerd/errdefs"
)

// tomlOptions reads the flat part of TOML that containerd's configuration needs
// for these options: `Key = value` with a string, a number or a boolean. The
// keys are those of [plugins...runtimes.runc.options]; unknown ones are errors,
// so that a misspelt one is not silently without effect.
func tomlOptions(text string, opts *options.Options) error {
	for i, line := range strings.Split(text, "\n") {
		line = strings.TrimSpace(line)
		if line == "" || strings.HasPrefix(line, "#") {
			continue
		}
		key, value, ok := strings.Cut(line, "=")
		if !ok {
			return fmt.Errorf("line %d: %q is not `Key = value`: %w", i+1, line, errdefs.ErrInvalidArgument)
		}
		key, value = strings.TrimSpace(key), strings.TrimSpace(value)
		if err := setOption(opts, key, value); err != nil {
			return fmt.Errorf("line %d: %s: %w: %w", i+1, key, err, errdefs.ErrInvalidArgument)
		}
	}
	return nil
}

func setOption(opts *options.Options, key, value string) (err error) {
	switch key {
	case "NoPivotRoot":
		opts.NoPivotRoot, err = strconv.ParseBool(value)
	case "NoNewKeyring":
		opts.NoNewKeyring, err = strconv.ParseBool(value)
	case "SystemdCgroup":
		opts.SystemdCgroup, err = strconv.ParseBool(value)
	case "ShimCgroup":
		opts.ShimCgroup, err = tomlString(value)
	case "Root":
		opts.Root, err = tomlString(value)
	case "IoUid":
		opts.IoUid, err = tomlUint32(value)
	case "IoGid":
		opts.IoGid, err = tomlUint32(value)
	case "BinaryName", "CriuImagePath", "CriuPath", "CriuWorkPath":
		// runc's and CRIU's own: containerd's default configuration has
		// them, mig has no use for them.
	default:
		err = fmt.Errorf("unknown option")
	}
	return err
}

func tomlString(v string) (string, error) {
	if len(v) >= 2 && v[0] == '\'' && v[len(v)-1] == '\'' {
		return v[1 : len(v)-1], nil
	}
	return strconv.Unquote(v)
}

func tomlUint32(v string) (uint32, error) {
	n, err := strconv.ParseUint(v, 10, 32)
	return uint32(n), err
}
