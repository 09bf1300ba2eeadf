// SPDX-License-Identifier: Apache-2.0

// Package workload drives the servers that tests checkpoint: it fills them
// and asks them for a proof of what they hold.
package workload

import (
	"context"
	"fmt"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"github.com/io-mig/mig/integration/internal/daemon"
)

// Redis is a Redis in a container of image.Redis.
type Redis struct {
	Daemon *daemon.Daemon
	ID     string
}

// execs numbers the exec ids of this process: no two may be the same.
var execs atomic.Int64

// Command runs redis-cli in the container and returns its answer.
func (r Redis) Command(ctx context.Context, words ...string) (string, error) {
	args := []string{"tasks", "exec", "--exec-id", fmt.Sprint("cli", execs.Add(1)), r.ID, "redis-cli", "-s", "/run/redis.sock", "-e"}
	result := r.Daemon.Ctr(ctx, append(args, words...)...)
	if err := result.Err(); err != nil {
		return "", fmt.Errorf("redis %s: %w", strings.Join(words, " "), err)
	}
	return strings.TrimSpace(result.Stdout), nil
}

// Ready waits until Redis answers.
func (r Redis) Ready(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, 20*time.Second)
	defer cancel()
	for {
		answer, err := r.Command(ctx, "PING")
		if err == nil && answer == "PONG" {
			return nil
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("redis in %s is not ready: %s: %w", r.ID, answer, err)
		case <-time.After(50 * time.Millisecond):
		}
	}
}

// Fill writes keys of about size bytes each.
func (r Redis) Fill(ctx context.Context, keys, size int) error {
	_, err := r.Command(ctx, "DEBUG", "POPULATE", strconv.Itoa(keys), "key", strconv.Itoa(size))
	return err
}

// Proof is what must not change between a checkpoint and a restore.
type Proof struct {
	Digest string // DEBUG DIGEST: a hash over every key and value
	Keys   int    // DBSIZE
	RunID  string // of the process: a Redis that was started afresh has another
}

// Proof asks Redis for a digest of all its data.
func (r Redis) Proof(ctx context.Context) (Proof, error) {
	var p Proof
	var err error
	if p.Digest, err = r.Command(ctx, "DEBUG", "DIGEST"); err != nil {
		return p, err
	}
	size, err := r.Command(ctx, "DBSIZE")
	if err != nil {
		return p, err
	}
	if p.Keys, err = strconv.Atoi(size); err != nil {
		return p, fmt.Errorf("DBSIZE says %q: %w", size, err)
	}
	info, err := r.Command(ctx, "INFO", "server")
	if err != nil {
		return p, err
	}
	for line := range strings.Lines(info) {
		if id, ok := strings.CutPrefix(strings.TrimSpace(line), "run_id:"); ok {
			p.RunID = id
		}
	}
	return p, nil
}
