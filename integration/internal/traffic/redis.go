// SPDX-License-Identifier: Apache-2.0

package traffic

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"net"
	"strings"
	"time"

	"github.com/io-mig/mig/integration/internal/image"
)

// redisPort is where a Redis listens.
const redisPort = 6379

// RedisCommand serves whoever comes.
var RedisCommand = []string{"redis-server", "--bind", "0.0.0.0", "::", "--protected-mode", "no", "--save", "", "--dir", "/tmp"}

// Redis has 50 connections of redis-benchmark, and some that measure.
func Redis() Server {
	return Server{Name: "Redis", Image: image.Redis, Command: RedisCommand, Port: redisPort, Work: redisWork}
}

func redisWork(ctx context.Context, c Client, ip string) (Load, error) {
	b, err := c.RedisBenchmark(ip)
	if err != nil {
		return nil, err
	}
	a, err := Ask(ctx, 5, time.Millisecond, c.tcp(ip, redisPort), Echoes)
	if err != nil {
		return nil, errors.Join(err, b.Close())
	}
	return &redisLoad{a, b}, nil
}

type redisLoad struct {
	*Asking
	benchmark *RedisBenchmark
}

func (l *redisLoad) Close() error { return errors.Join(l.Asking.Close(), l.benchmark.Close()) }

// RedisBenchmark is 50 connections of redis-benchmark at work.
type RedisBenchmark struct{ s *steady }

// RedisBenchmark starts them. The caller must Close it.
func (c Client) RedisBenchmark(ip string) (*RedisBenchmark, error) {
	s, err := c.steady("redis-benchmark", "-h", ip, "-c", "50", "-n", "2000000000", "-t", "set", "-r", "1000", "-q")
	return &RedisBenchmark{s}, err
}

// Close ends them, with an error if one of them has failed.
func (b *RedisBenchmark) Close() error {
	out, err := b.s.end()
	if err == nil && (strings.Contains(out, "rror") || strings.Contains(out, "closed")) {
		err = fmt.Errorf("redis-benchmark: %s", out)
	}
	return err
}

// Echoes asks a Redis to repeat what no other question says.
func Echoes(c net.Conn, r *bufio.Reader, client, n int) error {
	want := fmt.Sprintf("%d-%d", client, n)
	if _, err := fmt.Fprintf(c, "*2\r\n$4\r\nECHO\r\n$%d\r\n%s\r\n", len(want), want); err != nil {
		return err
	}
	head, err := r.ReadString('\n')
	if err != nil {
		return err
	}
	body, err := r.ReadString('\n')
	if err == nil && body != want+"\r\n" {
		err = fmt.Errorf("answer %q %q to %q", head, body, want)
	}
	return err
}
