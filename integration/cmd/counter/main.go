// SPDX-License-Identifier: Apache-2.0

// Command counter is a static Go server to checkpoint: goroutines on several
// threads, timers, an epoll, listening sockets (that for TCP speaks MPTCP, as Go
// has it) with a client of its own, and a few megabytes of data. `counter ask`
// makes it prove that nothing of it is lost. `counter outside` says to clients of
// other hosts, too, what they have said.
package main

import (
	"bytes"
	"encoding/binary"
	"errors"
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
	if len(os.Args) > 1 {
		switch os.Args[1] {
		case "ask":
			program = ask
		case "outside":
			program = func() error { return errors.Join(outside(), serve()) }
		}
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
	var words atomic.Int64
	if err := talk(&words); err != nil {
		return err
	}
	for {
		client, err := listener.Accept()
		if err != nil {
			return err
		}
		fmt.Fprintf(client, "pid %d data %08x ticks %d spins %d words %d\n", os.Getpid(), crc32.ChecksumIEEE(data), ticks.Load(), spins.Load(), words.Load())
		client.Close()
	}
}

// talk has a client and a server of TCP say words to each other. What breaks that
// ends the program.
func talk(words *atomic.Int64) error {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	client, err := net.Dial("tcp", listener.Addr().String())
	if err != nil {
		return err
	}
	server, err := listener.Accept()
	if err != nil {
		return err
	}
	go func() {
		_, err := io.Copy(server, server)
		fatal(err)
	}()
	go func() {
		said, heard := make([]byte, 8), make([]byte, 8)
		for {
			n := words.Add(1)
			binary.BigEndian.PutUint64(said, uint64(n))
			if _, err := client.Write(said); err != nil {
				fatal(err)
			}
			if _, err := io.ReadFull(client, heard); err != nil || !bytes.Equal(said, heard) {
				fatal(fmt.Errorf("heard %x instead of %x: %w", heard, said, err))
			}
			time.Sleep(time.Millisecond)
			// The listener is of use, too.
			if n%256 == 0 {
				c, err := net.Dial("tcp", listener.Addr().String())
				if err != nil {
					fatal(err)
				}
				s, err := listener.Accept()
				if err != nil {
					fatal(err)
				}
				c.Close()
				s.Close()
			}
		}
	}()
	return nil
}

// outsidePort is where clients of other hosts are served.
const outsidePort = ":7007"

// outside echoes what clients say, each for as long as it likes.
func outside() error {
	listener, err := net.Listen("tcp", outsidePort)
	if err != nil {
		return err
	}
	go func() {
		for {
			c, err := listener.Accept()
			if err != nil {
				fatal(err)
			}
			go func() {
				defer c.Close()
				_, _ = io.Copy(c, c) // the client's affair
			}()
		}
	}()
	return nil
}

func fatal(err error) {
	fmt.Fprintln(os.Stderr, "counter: TCP:", err)
	os.Exit(1)
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
