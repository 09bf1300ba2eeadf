// SPDX-License-Identifier: Apache-2.0

// Package encrypt keeps images secret at rest: it wraps a medium and encrypts
// to recipients. docs/image-format.md, Encryption, describes the bytes.
//
// What stays readable: file headers (so the version), the outer manifest
// (architecture, page size, time), the number of records and their sizes. The
// outer image has checksums of its own, so it can be verified without a key.
// Subsystems, addresses, ids, the container's name and all payloads are secret.
package encrypt

import (
	"bytes"
	"crypto/aes"
	"crypto/cipher"
	"crypto/rand"
	"encoding/base64"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"strings"

	"filippo.io/age"
	"github.com/io-mig/mig/spec/image"
	"github.com/io-mig/mig/spec/record"
)

// Subsystem is what the outer records are called by.
const Subsystem = "encrypt"

// Kinds of the outer records.
const (
	kindRecord   = 1 // a record, or the rest of one
	kindEnd      = 2
	kindManifest = 3
	kindVoid     = 4 // a number that is not used
	kindPart     = 5 // the beginning of a record that one payload cannot hold
)

// window is how many records may overtake one that has a lower number.
const window = 16

const (
	keySize   = 32
	tagSize   = 16
	maxPlain  = record.MaxPayload - tagSize
	keyPrefix = "age:"
)

// ErrNotEncrypted says that the image is plain, so it was not made for the recipients.
var ErrNotEncrypted = errors.New("the image is not encrypted")

// ErrForged marks bytes that the image's key did not seal, or not in this place.
var ErrForged = errors.New("not what was encrypted")

// newKey makes an image's key, and what the manifest says of it.
func newKey(recipients []age.Recipient) (cipher.AEAD, string, error) {
	key := make([]byte, keySize)
	_, _ = rand.Read(key) // never fails
	var wrapped bytes.Buffer
	w, err := age.Encrypt(&wrapped, recipients...)
	if err != nil {
		return nil, "", fmt.Errorf("encrypt the image's key: %w", err)
	}
	if _, err := w.Write(key); err != nil {
		return nil, "", fmt.Errorf("encrypt the image's key: %w", err)
	}
	if err := w.Close(); err != nil {
		return nil, "", fmt.Errorf("encrypt the image's key: %w", err)
	}
	aead, err := newAEAD(key)
	return aead, keyPrefix + base64.StdEncoding.EncodeToString(wrapped.Bytes()), err
}

// openKey is newKey's reverse.
func openKey(m *image.Manifest, identities []age.Identity) (cipher.AEAD, error) {
	text, ok := strings.CutPrefix(m.Encryption, keyPrefix)
	if !ok {
		return nil, ErrNotEncrypted
	}
	wrapped, err := base64.StdEncoding.Strict().DecodeString(text)
	if err != nil {
		return nil, fmt.Errorf("%w: the manifest's encryption: %w", image.ErrFormat, err)
	}
	r, err := age.Decrypt(bytes.NewReader(wrapped), identities...)
	if err != nil {
		return nil, fmt.Errorf("decrypt the image's key: %w: give the identity of one of its recipients", err)
	}
	key, err := io.ReadAll(io.LimitReader(r, keySize+1))
	if err == nil && len(key) != keySize {
		err = fmt.Errorf("%w: %d bytes, want %d", image.ErrFormat, len(key), keySize)
	}
	if err != nil {
		return nil, fmt.Errorf("decrypt the image's key: %w", err)
	}
	return newAEAD(key)
}

func newAEAD(key []byte) (cipher.AEAD, error) {
	block, err := aes.NewCipher(key)
	if err != nil {
		return nil, err
	}
	return cipher.NewGCM(block)
}

// nonce is unique under an image's key: a number is given once for each kind.
func nonce(kind uint32, number uint64) []byte {
	b := binary.BigEndian.AppendUint32(make([]byte, 0, 12), kind)
	return binary.BigEndian.AppendUint64(b, number)
}

// seal encrypts plain in place, which has room for the tag, into a record.
func seal(aead cipher.AEAD, kind uint32, number uint64, plain []byte) (*record.Record, error) {
	r := &record.Record{
		Header:  record.Header{Subsystem: Subsystem, Entity: number, Kind: kind},
		Payload: aead.Seal(plain[:0], nonce(kind, number), plain, nil),
	}
	return r, r.Seal()
}

// open decrypts a record into dst, which has room for it.
func open(aead cipher.AEAD, dst []byte, r *record.Record) ([]byte, error) {
	if r.Subsystem != Subsystem || r.Process != record.Shared {
		return nil, fmt.Errorf("%w: record %s in an encrypted image", ErrForged, r.Header)
	}
	plain, err := aead.Open(dst[:0], nonce(r.Kind, r.Entity), r.Payload, nil)
	if err != nil {
		return nil, fmt.Errorf("record %s: %w: it was damaged, moved or made with another key", r.Header, ErrForged)
	}
	return plain, nil
}
