// SPDX-License-Identifier: Apache-2.0

package peer

import (
	"errors"
	"fmt"
	"regexp"
	"strings"

	"github.com/opencontainers/go-digest"

	"github.com/io-mig/mig/layers/request/policy"
)

// Limits of what a peer may name.
const (
	maxName   = 128  // containerd's identifiers have at most 76 characters
	maxText   = 4096 // of other strings
	maxBlobs  = 4096 // of an image
	maxLists  = 4096 // entries of an answer
	maxBlob   = 1 << 40
	tokenSize = 32
)

var (
	// identifier is that of containerd's package identifiers.
	identifier = regexp.MustCompile(`^[A-Za-z0-9]+(?:[._-][A-Za-z0-9]+)*$`)
	hexDigits  = regexp.MustCompile(`^[0-9a-f]+$`)
)

func checkName(what, s string) error {
	if len(s) > maxName || !identifier.MatchString(s) {
		return fmt.Errorf("%.140q is no valid %s", s, what)
	}
	return nil
}

// ValidToken tells whether s is a move's token.
func ValidToken(s string) bool { return len(s) == tokenSize && hexDigits.MatchString(s) }

func (h *Hello) valid() error {
	if h.Oldest < 1 || h.Newest < h.Oldest {
		return fmt.Errorf("a hello that speaks versions %d to %d", h.Oldest, h.Newest)
	}
	return h.Host.valid()
}

func (h *Host) valid() error {
	return errors.Join(checkText("id of a host", h.ID), checkText("name of a host", h.Name), checkText("version of a tool", h.Tool))
}

// Valid checks what an offer must be, whatever the destination has. An offer
// that is not valid breaks the protocol.
func (o *Offer) Valid() error {
	if !ValidToken(o.Token) {
		return fmt.Errorf("%.40q is no token", o.Token)
	}
	if o.CgroupVersion != 1 && o.CgroupVersion != 2 {
		return fmt.Errorf("cgroup version %d", o.CgroupVersion)
	}
	return errors.Join(
		checkName("namespace", o.Namespace), checkName("medium", o.Medium), checkText("strategy", o.Strategy),
		o.State.Valid(), o.Container.valid(),
	)
}

func (c *Container) valid() error {
	if len(c.Spec) == 0 {
		return errors.New("a container without a spec")
	}
	errs := []error{
		checkName("container", c.ID), checkText("runtime", c.Runtime.Name), checkText("type of a spec", c.SpecType),
		checkName("snapshotter", c.Snapshot.Snapshotter), checkText("snapshot", c.Snapshot.Key), checkText("snapshot", c.Snapshot.Parent),
		checkLabels(c.Labels), checkLabels(c.Snapshot.Labels), c.Image.valid(), policy.Valid(c.Policies),
	}
	if c.Network != nil {
		errs = append(errs, c.Network.Valid())
	}
	for _, s := range []string{c.Streams.Stdin, c.Streams.Stdout, c.Streams.Stderr, c.Streams.LogURI} {
		errs = append(errs, checkText("standard stream", s))
	}
	return errors.Join(errs...)
}

func (i *Image) valid() error {
	if len(i.Blobs) == 0 || len(i.Blobs) > maxBlobs {
		return fmt.Errorf("an image of %d blobs, allowed are 1 to %d", len(i.Blobs), maxBlobs)
	}
	if i.Name == "" {
		return errors.New("an image without a name")
	}
	errs := []error{checkText("image", i.Name), checkLabels(i.Labels), i.Target.valid()}
	seen := map[digest.Digest]bool{}
	for _, b := range i.Blobs {
		errs = append(errs, b.valid())
		if seen[b.Digest] {
			errs = append(errs, fmt.Errorf("the image has blob %s twice", b.Digest))
		}
		seen[b.Digest] = true
	}
	if !seen[i.Target.Digest] {
		errs = append(errs, errors.New("the image's target is not among its blobs"))
	}
	return errors.Join(errs...)
}

func (d *Descriptor) valid() error {
	if d.Size < 0 || d.Size > maxBlob {
		return fmt.Errorf("a blob of %d bytes", d.Size)
	}
	return errors.Join(checkDigest(d.Digest), checkText("media type", d.MediaType), checkLabels(d.Annotations))
}

func (b *Blob) valid() error {
	if b.Size < 0 || b.Size > maxBlob || b.Offset < 0 || b.Offset > b.Size {
		return fmt.Errorf("a blob of %d bytes from %d", b.Size, b.Offset)
	}
	return checkDigest(b.Digest)
}

func (a *Answer) valid() error {
	if len(a.Mismatches)+len(a.Wanted)+len(a.Warnings) > maxLists {
		return fmt.Errorf("an answer of %d mismatches, %d blobs and %d warnings", len(a.Mismatches), len(a.Wanted), len(a.Warnings))
	}
	for _, w := range a.Wanted {
		if w.Offset < 0 {
			return fmt.Errorf("blob %s is wanted from %d", w.Digest, w.Offset)
		}
		if err := checkDigest(w.Digest); err != nil {
			return err
		}
	}
	return nil
}

func checkDigest(d digest.Digest) error {
	if err := d.Validate(); err != nil {
		return fmt.Errorf("digest %.80q: %w", string(d), err)
	}
	return nil
}

func checkText(what, s string) error {
	if len(s) > maxText || strings.ContainsRune(s, 0) {
		return fmt.Errorf("%s: %d bytes of text, or a zero byte in it", what, len(s))
	}
	return nil
}

// checkLabels holds keys and values to containerd's limit for labels, 4096
// bytes together (package labels).
func checkLabels(m map[string]string) error {
	for k, v := range m {
		if k == "" || len(k)+len(v) > maxText {
			return fmt.Errorf("label %.80q has %d bytes, the limit is %d", k, len(k)+len(v), maxText)
		}
	}
	return nil
}
