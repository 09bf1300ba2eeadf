// SPDX-License-Identifier: Apache-2.0

// Command talk is an HTTP server for tests of open connections. /stream/N sends N
// bytes of a pattern that repeats itself nowhere near (package pattern); /echo is a
// WebSocket that sends back every message, as does UDP; any other path gets a short answer.
package main

import (
	"bufio"
	"context"
	"crypto/sha1"
	"encoding/base64"
	"encoding/binary"
	"errors"
	"io"
	"log"
	"net"
	"net/http"
	"os"
	"strconv"
	"strings"

	"github.com/io-mig/mig/integration/internal/pattern"
)

func main() {
	if len(os.Args) != 2 {
		log.Fatal("usage: talk ADDRESS")
	}
	go datagrams(os.Args[1])
	http.HandleFunc("/stream/", stream)
	http.HandleFunc("/echo", echo)
	http.HandleFunc("/", func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "hello\n") })
	// Connections of Multipath TCP, which Go listens for, are not carried.
	var c net.ListenConfig
	c.SetMultipathTCP(false)
	l, err := c.Listen(context.Background(), "tcp", os.Args[1])
	if err != nil {
		log.Fatal(err)
	}
	log.Fatal(http.Serve(l, nil))
}

// datagrams sends back what comes by UDP.
func datagrams(address string) {
	c, err := net.ListenPacket("udp", address)
	if err != nil {
		log.Fatal(err)
	}
	b := make([]byte, 1<<16)
	for {
		n, from, err := c.ReadFrom(b)
		if err != nil {
			log.Fatal(err)
		}
		if _, err := c.WriteTo(b[:n], from); err != nil {
			log.Print(err)
		}
	}
}

func stream(w http.ResponseWriter, r *http.Request) {
	n, err := strconv.ParseInt(strings.TrimPrefix(r.URL.Path, "/stream/"), 10, 64)
	if err != nil || n < 0 {
		http.Error(w, "how many bytes?", http.StatusBadRequest)
		return
	}
	w.Header().Set("Content-Length", strconv.FormatInt(n, 10))
	if _, err := io.CopyBuffer(struct{ io.Writer }{w}, io.LimitReader(&pattern.Stream{}, n), make([]byte, 256<<10)); err != nil {
		log.Print(err)
	}
}

// acceptGUID is that of RFC 6455, section 1.3.
const acceptGUID = "258EAFA5-E914-47DA-95CA-C5AB0DC85B11"

func echo(w http.ResponseWriter, r *http.Request) {
	key := r.Header.Get("Sec-WebSocket-Key")
	h, ok := w.(http.Hijacker)
	if key == "" || !ok {
		http.Error(w, "a WebSocket is here", http.StatusUpgradeRequired)
		return
	}
	c, rw, err := h.Hijack()
	if err != nil {
		log.Print(err)
		return
	}
	defer c.Close()
	sum := sha1.Sum([]byte(key + acceptGUID))
	_, _ = io.WriteString(c, "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: "+base64.StdEncoding.EncodeToString(sum[:])+"\r\n\r\n")
	for {
		message, err := frame(rw.Reader)
		if err != nil {
			if !errors.Is(err, io.EOF) {
				log.Print(err)
			}
			return
		}
		if _, err := c.Write(append([]byte{0x80 | binaryFrame, byte(len(message))}, message...)); err != nil {
			log.Print(err)
			return
		}
	}
}

const binaryFrame = 2

// frame reads a masked message of a client's of less than 126 bytes (RFC 6455,
// section 5.2).
func frame(r *bufio.Reader) ([]byte, error) {
	var head [6]byte
	if _, err := io.ReadFull(r, head[:]); err != nil {
		return nil, err
	}
	n := head[1] & 0x7f
	if head[0] != 0x80|binaryFrame || head[1]&0x80 == 0 || n > 125 {
		return nil, errors.New("a frame of another kind: " + strconv.FormatUint(uint64(binary.BigEndian.Uint16(head[:])), 16))
	}
	b := make([]byte, n)
	if _, err := io.ReadFull(r, b); err != nil {
		return nil, err
	}
	for i := range b {
		b[i] ^= head[2+i%4]
	}
	return b, nil
}
