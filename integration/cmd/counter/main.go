// SPDX-License-Identifier: Apache-2.0

// Command counter is a static Go server to checkpoint: goroutines on several
// threads, timers, an epoll, a listening unix socket and a few megabytes of
// data. `counter ask` makes it prove that nothing of it is lost.
package main

import (
	"fmt"
	"hash/crc32"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"sync/atomic"
	"time"
)

const socket = "/run/counter.sock"

func main() {
	program := serve
	if len(os.Args) > 1 && os.Args[1] == "ask" {
		program = ask
	}
	if err := program(); err != nil {
		fmt.Fprintln(os.Stderr, "counter:", err)
		os.Exit(1)
	}
}

// serve counts and answers until it is killed.
func serve() error {
	listener, err := net.Listen("unix", socket)
	if err != nil {
		return err
	}
	data := make([]byte, 8<<20)
	for i := range data {
		data[i] = byte(rand.Uint32())
	}
	var ticks, spins atomic.Int64
	for range 4 {
		go func() {
			for range time.Tick(5 * time.Millisecond) {
				ticks.Add(1)
			}
		}()
	}
	go func() {
		for {
			spins.Add(1)
			time.Sleep(time.Microsecond)
		}
	}()
	for {
		client, err := listener.Accept()
		if err != nil {
			return err
		}
		fmt.Fprintf(client, "pid %d data %08x ticks %d spins %d\n", os.Getpid(), crc32.ChecksumIEEE(data), ticks.Load(), spins.Load())
		client.Close()
	}
}

func ask() error {
	server, err := net.Dial("unix", socket)
	if err != nil {
		return err
	}
	defer server.Close()
	_, err = io.Copy(os.Stdout, server)
	return err
}
