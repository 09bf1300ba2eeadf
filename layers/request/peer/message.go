// SPDX-License-Identifier: Apache-2.0

// Package peer is what the coordinator of a move (mig, on the source) and the
// daemon of its destination (migd) say to each other, on one connection of its
// own; the container's state passes over others, from engine to engine.
//
//	mig                                  migd
//	  hello                     --->
//	                            <---     hello
//	  offer                     --->
//	                            <---     answer: what does not fit, all of it,
//	                                     or the blobs that are wanted
//	  blob, blob frames         --->                          for each of them
//	                            <---     stored
//	  prepare                   --->
//	                            <---     prepared: a frame waits for the engine
//	                            <---     progress, any number of times
//	  abort, at most once       --->     at any time after the offer
//	                            <---     end: the copy runs, or why it does not
//
// A frame is 8 bytes and its body: type (1 byte), zero (3 bytes), length of the
// body (4 bytes, little-endian). Messages are JSON, one to a frame; a blob's
// bytes are in frames of their own, so that nothing is encoded twice.
//
// The end of the connection counts as an abort: before its commit the move is
// undone on both hosts. Afterwards it goes to its end all the same, since the
// engines decide and not this conversation.
//
// Versions: each side names the oldest and the newest that it speaks, and the
// newest that both speak is used. A release speaks its own and the one before.
// JSON fields may be added within a version; unknown ones are ignored.
package peer

import (
	"encoding/json"
	"fmt"
	"path"
	"strings"
	"time"

	"github.com/opencontainers/go-digest"

	"github.com/io-mig/mig/layers/request/job"
	"github.com/io-mig/mig/layers/request/policy"
	"github.com/io-mig/mig/spec/image"
	"github.com/io-mig/mig/spec/network"
)

// Versions of the conversation that this release speaks.
const (
	Oldest = 1
	Newest = 1
)

// Message is one message. One field is set.
type Message struct {
	Hello    *Hello        `json:"hello,omitempty"`
	Offer    *Offer        `json:"offer,omitempty"`
	Answer   *Answer       `json:"answer,omitempty"`
	Blob     *Blob         `json:"blob,omitempty"`
	Stored   *Stored       `json:"stored,omitempty"`
	Prepare  *Prepare      `json:"prepare,omitempty"`
	Prepared *Prepared     `json:"prepared,omitempty"`
	Progress *job.Progress `json:"progress,omitempty"`
	Abort    *Abort        `json:"abort,omitempty"`
	End      *End          `json:"end,omitempty"`
}

// Hello is each side's first message.
type Hello struct {
	Oldest int  `json:"oldest"`
	Newest int  `json:"newest"`
	Host   Host `json:"host"`
}

// Host is who speaks.
type Host struct {
	// ID is that of the host's containerd (its server's UUID), which tells a
	// move to another host from one to the same. Two containerds of one machine
	// are two hosts.
	ID   string `json:"id"`
	Name string `json:"name"`
	// Tool is the version of mig.
	Tool string `json:"tool"`
	// Time of the host. No decision depends on it: it only puts the times that
	// the hosts report on one line.
	Time time.Time `json:"time"`
}

// Offer is everything that the destination has to know to say no.
type Offer struct {
	// Token names the move on both hosts, 32 hexadecimal digits.
	Token     string    `json:"token"`
	Namespace string    `json:"namespace"`
	Container Container `json:"container"`
	// State is what the engine's stream will be: architecture, kernel, page size,
	// CPU features and the subsystems with their versions.
	State image.Manifest `json:"state"`
	// Medium carries the state, for example "stream".
	Medium string `json:"medium"`
	// CgroupVersion that the container's processes are in, 1 or 2.
	CgroupVersion int `json:"cgroup_version"`
	// Memory that the container occupies, in bytes.
	Memory uint64 `json:"memory"`
	// Strategy and Request are for what the destination shows of the move.
	Strategy string `json:"strategy,omitempty"`
}

// Container is a container as containerd knows it.
type Container struct {
	ID         string            `json:"id"`
	Labels     map[string]string `json:"labels,omitempty"`
	Runtime    Runtime           `json:"runtime"`
	Spec       json.RawMessage   `json:"spec"`
	SpecType   string            `json:"spec_type"`
	Extensions map[string]Any    `json:"extensions,omitempty"`
	Image      Image             `json:"image"`
	Snapshot   Snapshot          `json:"snapshot"`
	Streams    Streams           `json:"streams"`
	// Policies hold for this move, beside those of the container's annotations:
	// those of package policy.
	Policies map[string]string `json:"policies,omitempty"`
	// Network is what the container has of its host's network, nil: nothing of it
	// goes along.
	Network *network.Request `json:"network,omitempty"`
}

// Copied are the mount points whose content goes along.
func (c *Container) Copied() []string {
	var paths []string
	for p := range strings.SplitSeq(c.Policies[policy.CopyVolume], ",") {
		if p != "" {
			paths = append(paths, path.Clean(p))
		}
	}
	return paths
}

// Runtime is the runtime's name and its options.
type Runtime struct {
	Name    string `json:"name"`
	Options *Any   `json:"options,omitempty"`
}

// Any is a protobuf message of a type that mig need not know.
type Any struct {
	Type  string `json:"type"`
	Value []byte `json:"value,omitempty"`
}

// Image is the container's image.
type Image struct {
	Name   string            `json:"name"`
	Labels map[string]string `json:"labels,omitempty"`
	Target Descriptor        `json:"target"`
	// Blobs are the target and everything below it that the source's platform
	// needs, children before their parents.
	Blobs []Content `json:"blobs"`
}

// Descriptor names a blob.
type Descriptor struct {
	MediaType   string            `json:"media_type"`
	Digest      digest.Digest     `json:"digest"`
	Size        int64             `json:"size"`
	Annotations map[string]string `json:"annotations,omitempty"`
}

// Content is a blob of the image.
type Content struct {
	Descriptor
	// Absent: the source does not have it either, as happens to the layers of an
	// image where containerd throws them away once they are unpacked.
	Absent bool `json:"absent,omitempty"`
}

// Snapshot is the container's root filesystem.
type Snapshot struct {
	Snapshotter string `json:"snapshotter"`
	Key         string `json:"key"`
	Parent      string `json:"parent"`
	ReadOnly    bool   `json:"read_only,omitempty"`
	// Size of the container's own layer, and of all layers of its image, in bytes.
	Size   int64             `json:"size,omitempty"`
	Layers int64             `json:"layers,omitempty"`
	Labels map[string]string `json:"labels,omitempty"`
}

// Streams are the task's standard streams as containerd was asked for them:
// paths of FIFOs, URIs, or empty.
type Streams struct {
	Stdin    string `json:"stdin,omitempty"`
	Stdout   string `json:"stdout,omitempty"`
	Stderr   string `json:"stderr,omitempty"`
	Terminal bool   `json:"terminal,omitempty"`
	// LogURI takes the place of both outputs where it is not empty.
	LogURI string `json:"log_uri,omitempty"`
}

// Answer is the destination's: a no with every reason, or what it lacks.
type Answer struct {
	Mismatches []Mismatch `json:"mismatches,omitempty"`
	// Warnings are worth knowing and in nobody's way.
	Warnings []string `json:"warnings,omitempty"`
	Wanted   []Wanted `json:"wanted,omitempty"`
}

// Mismatch is one reason why a container cannot come.
type Mismatch struct {
	// What does not fit, for example "CPU features".
	What string `json:"what"`
	// Why, naming what the container needs and what the destination has.
	Why string `json:"why"`
	// Remedy, where there is one.
	Remedy string `json:"remedy,omitempty"`
}

func (m Mismatch) String() string {
	s := fmt.Sprintf("%s: %s", m.What, m.Why)
	if m.Remedy != "" {
		s += " (" + m.Remedy + ")"
	}
	return s
}

// Wanted is a blob that the destination lacks, and how many bytes of it it has
// from an attempt before.
type Wanted struct {
	Digest digest.Digest `json:"digest"`
	Offset int64         `json:"offset,omitempty"`
}

// Blob announces a blob's bytes from an offset to its end. Blob frames follow
// until all are there.
type Blob struct {
	Digest digest.Digest `json:"digest"`
	Offset int64         `json:"offset,omitempty"`
	// Size is the whole blob's.
	Size int64 `json:"size"`
}

// Stored says that a blob is there and its digest is right.
type Stored struct {
	Digest digest.Digest `json:"digest"`
}

// Prepare asks for everything that comes before the container's state.
type Prepare struct{}

// Prepared says that it is done: a frame waits for the source's engine.
type Prepared struct {
	// Pid of the frame at the destination.
	Pid int `json:"pid,omitempty"`
}

// Abort ends the move, if that is still possible.
type Abort struct {
	Reason string `json:"reason"`
}

// End is the outcome at the destination.
type End struct {
	// Running: the copy runs, and the source never again may.
	Running bool `json:"running"`
	// Pid of the copy's first process at the destination.
	Pid int `json:"pid,omitempty"`
	// Last is the last progress of the destination's engine.
	Last job.Progress `json:"last"`
	// Failure says why it does not run.
	Failure *job.Failure `json:"failure,omitempty"`
}
