// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/io-mig/mig/integration/bench/move"
	"github.com/io-mig/mig/integration/internal/repo"
	"github.com/io-mig/mig/integration/internal/traffic"
)

// live is the second part of the story: a Redis moves between two hosts while clients
// on a third one are at work on it.
type live struct {
	world  *move.Clients
	load   traffic.Load
	client traffic.Client
	ip     string // of the Redis
	before string // see proof
}

// showLive makes the hosts, tells the story and cleans up whatever happens.
func showLive(ctx context.Context, s screen, tree repo.Tree) (err error) {
	dir, err := os.MkdirTemp("", "mig-demo-")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	var l live
	err = s.step("two hosts with a containerd and a migd each, one for clients", func() (string, error) {
		var err error
		l.world, err = move.NewClients(ctx, tree, dir)
		return "", err
	})
	if err != nil {
		return err
	}
	defer func() {
		if err != nil && ctx.Err() == nil { // the logs are gone after Close
			fmt.Fprintf(os.Stderr, "%s\n", l.world.Log())
		}
		err = errors.Join(err, l.world.Close())
	}()
	return l.show(ctx, s)
}

// show is what happens in it.
func (l *live) show(ctx context.Context, s screen) error {
	defer l.close()
	steps := []struct {
		what string
		do   func() (string, error)
	}{
		{fmt.Sprintf("ctr run redis on %s, %d keys", l.world.From.Name, keys), func() (string, error) { return "", l.serve(ctx) }},
		{"mig migrate redis " + l.world.To.Name + ", 55 connections at work", func() (string, error) { return l.move(ctx) }},
		{"mig migrate redis " + l.world.From.Name + ", and back again", func() (string, error) { return l.move(ctx) }},
		{"the same process, the same data, no client saw an error", func() (string, error) { return "", l.check(ctx) }},
		{"everything is removed again", func() (string, error) { return "", l.world.Remove(ctx) }},
	}
	for _, step := range steps {
		if err := s.step(step.what, step.do); err != nil {
			return fmt.Errorf("%s: %w", step.what, err)
		}
	}
	return nil
}

// serve runs the Redis on the first host, fills it and puts its clients to work.
func (l *live) serve(ctx context.Context) (err error) {
	server := traffic.Redis()
	server.Command = append(slices.Clone(server.Command), "--enable-debug-command", "yes")
	work := server.Work
	server.Work = func(ctx context.Context, c traffic.Client, ip string) (traffic.Load, error) {
		l.client, l.ip = c, ip
		if _, err := l.ask(ctx, "DEBUG", "POPULATE", strconv.Itoa(keys), "key", strconv.Itoa(keySize)); err != nil {
			return nil, err
		}
		if l.before, err = l.proof(ctx); err != nil {
			return nil, err
		}
		return work(ctx, c, ip)
	}
	l.load, err = l.world.Serve(ctx, server)
	return err
}

// move moves the Redis to the other host, and says what that cost whom.
func (l *live) move(ctx context.Context) (string, error) {
	if err := l.load.Begin(ctx); err != nil {
		return "", err
	}
	r, err := l.world.Move(ctx)
	if err != nil {
		return "", err
	}
	seen, err := l.load.End()
	if err == nil {
		err = seen.Err()
	}
	return fmt.Sprintf("stopped for %.1f ms; the longest that a client waited: %.1f ms", milliseconds(r.Downtime()), milliseconds(seen.Silence)), err
}

// check ends the clients' work, which says whether any of them saw an error, and
// compares.
func (l *live) check(ctx context.Context) error {
	if err := l.close(); err != nil {
		return err
	}
	after, err := l.proof(ctx)
	if err == nil && after != l.before {
		err = fmt.Errorf("the Redis is %s, before its moves it was %s", after, l.before)
	}
	return err
}

// close ends the clients' work once.
func (l *live) close() error {
	load := l.load
	l.load = nil
	if load == nil {
		return nil
	}
	return load.Close()
}

// proof is what must not change by moves while clients write keys of their own: the
// process's own id, and the digests of all keys that were there before.
func (l *live) proof(ctx context.Context) (string, error) {
	info, err := l.ask(ctx, "INFO", "server")
	if err != nil {
		return "", err
	}
	at := strings.Index(info, "run_id:")
	if at < 0 {
		return "", errors.New("redis does not tell its run id")
	}
	id, _, _ := strings.Cut(info[at:], "\n")
	names := make([]string, keys)
	for i := range names {
		names[i] = "key:" + strconv.Itoa(i)
	}
	all := sha256.New()
	for some := range slices.Chunk(names, 10_000) { // of what a command line holds
		digests, err := l.ask(ctx, append([]string{"DEBUG", "DIGEST-VALUE"}, some...)...)
		if err != nil {
			return "", err
		}
		all.Write([]byte(digests))
	}
	return fmt.Sprintf("%s, sha256 %x", strings.TrimSpace(id), all.Sum(nil)), nil
}

// ask has redis-cli on the clients' host put a question to the Redis.
func (l *live) ask(ctx context.Context, words ...string) (string, error) {
	cmd := l.client.Command(ctx, "redis-cli", append([]string{"-h", l.ip, "-e"}, words...)...)
	out, err := cmd.Output()
	if err != nil {
		return "", fmt.Errorf("redis-cli %s: %w: %s", strings.Join(words[:2], " "), err, out)
	}
	return string(out), nil
}

func milliseconds(d time.Duration) float64 { return float64(d.Microseconds()) / 1000 }
