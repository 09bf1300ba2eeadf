// SPDX-License-Identifier: Apache-2.0

package directory

import (
	"context"
	"fmt"
	"net/url"
	"runtime"
	"strconv"

	"github.com/io-mig/mig/layers/medium"
	"github.com/io-mig/mig/spec/image"
)

// Options of a writer.
type Options struct {
	// NoSync leaves out fsync(2) at Flush: the image may be lost or torn if
	// the machine goes down, but not if only we do. On tmpfs it changes nothing.
	NoSync bool
	// Lanes is the number of pages files, and so of large payloads that are
	// written at the same time. 0: one for each CPU that Go uses, at most 8.
	Lanes int
}

func (o Options) lanes() int {
	if o.Lanes > 0 {
		return min(o.Lanes, image.MaxLanes)
	}
	return min(runtime.GOMAXPROCS(0), 8)
}

// ParseOptions reads the options of a dir: URL: sync=true|false and lanes=N.
func ParseOptions(query url.Values) (Options, error) {
	var o Options
	for key := range query {
		value := query.Get(key)
		switch key {
		case "sync":
			sync, err := strconv.ParseBool(value)
			if err != nil {
				return o, fmt.Errorf("option sync=%q: want true or false", value)
			}
			o.NoSync = !sync
		case "lanes":
			n, err := strconv.Atoi(value)
			if err != nil || n < 1 || n > image.MaxLanes {
				return o, fmt.Errorf("option lanes=%q: want 1 to %d", value, image.MaxLanes)
			}
			o.Lanes = n
		default:
			return o, fmt.Errorf("unknown option %q: a directory takes sync and lanes", key)
		}
	}
	return o, nil
}

// Open is the medium's opener for medium.Manager.
func Open(_ context.Context, address *url.URL, d medium.Direction) (medium.Medium, error) {
	options, err := ParseOptions(address.Query())
	if err != nil {
		return nil, fmt.Errorf("%s: %w", address, err)
	}
	switch d {
	case medium.Write:
		return Create(address.Path, options)
	case medium.Read:
		return NewReader(address.Path)
	}
	return nil, fmt.Errorf("%s: %w: %s", address, medium.ErrDirection, d)
}
