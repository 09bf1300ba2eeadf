// SPDX-License-Identifier: Apache-2.0

package checkpoint

import (
	"fmt"
	"regexp"
	"slices"
	"strconv"
	"testing"
	"time"

	"github.com/io-mig/mig/integration/internal/daemon"
	"github.com/io-mig/mig/integration/internal/image"
	"github.com/io-mig/mig/integration/internal/itest"
)

// subject is a program that can say what it holds.
type subject struct {
	name    string
	image   image.Image
	command []string
	setUp   string // shell script run once, in the container
	// ask prints "KEY VALUE" pairs: ticks, spins, loops and words may only grow,
	// everything else must not change.
	ask string
}

// pythonProgram holds random data and counts in a thread; it answers a signal
// with a file.
const pythonProgram = `
import itertools, os, signal, threading, time, zlib
data = [os.urandom(1000) for _ in range(20000)]
ticks = 0
def count():
    global ticks
    while True:
        time.sleep(0.005)
        ticks += 1
for _ in range(3):
    threading.Thread(target=count, daemon=True).start()
asked = itertools.count()
def answer(*_): # a second signal may come in the middle of it
    new = "/tmp/new%d" % next(asked)
    with open(new, "w") as f:
        f.write("pid %d data %08x threads %d ticks %d\n" % (os.getpid(), zlib.crc32(b"".join(data)), threading.active_count(), ticks))
    os.rename(new, "/tmp/answer")
signal.signal(signal.SIGUSR1, answer)
while True:
    signal.pause()
`

// preforkProgram is a server with workers that it forked: they share its data
// copy-on-write, a lock and a counter of multiprocessing (semaphores and an
// unlinked file that are mapped), POSIX shared memory, and a memfd that each maps.
const preforkProgram = `
import itertools, mmap, multiprocessing, os, signal, time, zlib
from multiprocessing import shared_memory
context = multiprocessing.get_context("fork")
data = [os.urandom(1000) for _ in range(20000)]
lock, ticks = context.Lock(), context.Value("q", 0)
named = shared_memory.SharedMemory(create=True, size=1 << 20)
named.buf[:4] = os.urandom(4)
fd = os.memfd_create("board")
os.ftruncate(fd, 4096)
board = mmap.mmap(fd, 4096)
os.close(fd)
def work(n):
    signal.signal(signal.SIGUSR1, signal.SIG_IGN)
    mine = shared_memory.SharedMemory(name=named.name)
    while True:
        with lock, ticks.get_lock():
            ticks.value += 1
        board[n] = (board[n] + 1) % 256
        if zlib.crc32(b"".join(data[n::40])) != whole[n] or mine.buf[:4] != named.buf[:4]:
            board[100 + n] = 1
        time.sleep(0.005)
whole = [zlib.crc32(b"".join(data[n::40])) for n in range(4)]
workers = [context.Process(target=work, args=(n,)) for n in range(4)]
for w in workers:
    w.start()
asked = itertools.count()
def answer(*_):
    before = bytes(board[:4])
    end = time.time() + 5
    while any(before[n] == board[n] for n in range(4)) and time.time() < end:
        time.sleep(0.01)
    moving = sum(before[n] != board[n] for n in range(4))
    alive = sum(w.is_alive() for w in workers)
    new = "/tmp/new%d" % next(asked)
    with open(new, "w") as f:
        f.write("pid %d data %08x alive %d moving %d bad %s named %s ticks %d\n" % (
            os.getpid(), zlib.crc32(b"".join(data)), alive, moving, bytes(board[100:104]).hex(), bytes(named.buf[:4]).hex(), ticks.value))
    os.rename(new, "/tmp/answer")
signal.signal(signal.SIGUSR1, answer)
while True:
    signal.pause()
`

// askByFile asks a program that answers SIGUSR1 with /tmp/answer. It asks again
// until there is an answer: the first process of a pid namespace ignores
// signals until it has a handler.
const askByFile = `rm -f /tmp/answer; until [ -s /tmp/answer ]; do kill -USR1 1; usleep 50000; done; cat /tmp/answer`

// shellProgram starts processes all the time, in the background and in a pipe
// as well. It answers by itself, and its children by what they count.
const shellProgram = `loops=0; piped=0
trap 'echo pid $$ ticks $loops spins $(cat /tmp/piped) loops $(cat /tmp/below) word $word first $first >/tmp/answer' USR1
read word </proc/sys/kernel/random/uuid; echo 1 >/tmp/piped; echo 1 >/tmp/below
(n=1; while :; do n=$((n+1)); sleep 0.01; echo $n >/tmp/below.new; mv /tmp/below.new /tmp/below; done) &
first=$!
(n=1; while :; do n=$((n+1)); echo $n; sleep 0.01; done) | (while read n; do echo $n >/tmp/piped.new; mv /tmp/piped.new /tmp/piped; done) &
while :; do loops=$((loops+1)); sleep 0.01; done`

func subjects(t *testing.T, host *itest.Host) []subject {
	t.Helper()
	counter := image.Image{
		Name: "mig.test/counter:1", Command: []string{"/counter"},
		Extra: map[string]string{"/counter": host.Tree.Tool("counter")},
	}
	python := image.Python
	// ctypes, which shared values are made of, needs a library of its own.
	const ffi = "/lib/x86_64-linux-gnu/libffi.so.8"
	python.Extra = map[string]string{ffi: ffi}
	python.Files = map[string]string{"/program.py": pythonProgram, "/prefork.py": preforkProgram}
	return []subject{
		{
			name: "shell", image: image.Busybox,
			command: []string{"sh", "-c", shellProgram},
			ask:     askByFile,
		},
		{name: "go", image: counter, ask: "/counter ask"},
		{name: "python", image: python, command: []string{"python3", "/program.py"}, ask: askByFile},
		{name: "prefork", image: python, command: []string{"python3", "/prefork.py"}, ask: askByFile},
		{
			name: "memcached", image: image.Memcached,
			setUp: `until printf 'quit\r\n' | nc 127.0.0.1 11211; do usleep 50000; done; i=0; while [ $i -lt 500 ]; do printf 'set key%d 0 0 5\r\n%05d\r\n' $i $i; i=$((i+1)); done | nc -w 1 127.0.0.1 11211 | sort | uniq -c`,
			ask:   `printf 'stats\r\nget key499\r\nquit\r\n' | nc 127.0.0.1 11211 | tr -d '\r' | awk '$2 == "pid" || $2 == "curr_items" || $2 == "threads" { print $2, $3 } /^[0-9]/ { print "value", $1 }'`,
		},
	}
}

// Programs that together use most of what the engine knows.
func TestCheckpointWorkloads(t *testing.T) {
	host := itest.Start(t, daemon.Config{Version: daemon.V24})
	for _, s := range subjects(t, host) {
		t.Run(s.name, func(t *testing.T) {
			host.Load(t, s.image)
			removeLater(t, host, s.name)
			host.Must(t, append([]string{"run", "--detach", "--null-io", "--runtime", itest.Mig, s.image.Name, s.name}, s.command...)...)
			if s.setUp != "" {
				shell(t, host, s.name, s.setUp)
			}
			before := s.answer(t, host, s.name)
			save(t, host, s.name, "mig.test/"+s.name+":saved")
			s.compare(t, before, s.answer(t, host, s.name)) // the original goes on
			host.Remove(s.name)
			restore(t, host, s.name, "mig.test/"+s.name+":saved")
			first := s.answer(t, host, s.name)
			s.compare(t, before, first)
			time.Sleep(200 * time.Millisecond)
			s.moves(t, first, s.answer(t, host, s.name))
		})
	}
}

// shell runs a script in a container and returns what it prints.
func shell(t *testing.T, host *itest.Host, id, script string) string {
	t.Helper()
	exec := fmt.Sprint("sh", time.Now().UnixNano())
	return host.Must(t, "tasks", "exec", "--exec-id", exec, id, "sh", "-c", script).Stdout
}

var pair = regexp.MustCompile(`(\w+) (\w+)`)

// answer asks the program. It fails t where the program says nothing.
func (s subject) answer(t *testing.T, host *itest.Host, id string) map[string]string {
	t.Helper()
	var said string
	for end := time.Now().Add(10 * time.Second); said == ""; {
		exec := fmt.Sprint("ask", time.Now().UnixNano())
		result := host.Ctr(t.Context(), "tasks", "exec", "--exec-id", exec, id, "sh", "-c", s.ask)
		if result.Code == 0 {
			said = result.Stdout
		} else if time.Now().After(end) {
			t.Fatal(result.Err())
		}
	}
	values := map[string]string{}
	for _, match := range pair.FindAllStringSubmatch(said, -1) {
		values[match[1]] = match[2]
	}
	if len(values) < 3 {
		t.Fatalf("%s says only %q", s.name, said)
	}
	return values
}

// grows reports whether a value counts.
func grows(key string) bool {
	return slices.Contains([]string{"ticks", "spins", "loops", "words"}, key)
}

// compare holds a later answer to an earlier one.
func (s subject) compare(t *testing.T, before, after map[string]string) {
	t.Helper()
	for key, was := range before {
		is := after[key]
		if grows(key) {
			if number(t, is) < number(t, was) {
				t.Errorf("%s went back from %s to %s", key, was, is)
			}
		} else if is != was {
			t.Errorf("%s was %s and is %s", key, was, is)
		}
	}
}

// moves fails t unless every counter goes on: a restored thread or timer that
// never runs again is as good as lost.
func (s subject) moves(t *testing.T, before, after map[string]string) {
	t.Helper()
	for key, was := range before {
		if grows(key) && number(t, after[key]) <= number(t, was) {
			t.Errorf("%s stands still at %s after the restore", key, was)
		}
	}
}

func number(t *testing.T, text string) int {
	t.Helper()
	n, err := strconv.Atoi(text)
	if err != nil {
		t.Fatal(err)
	}
	return n
}
