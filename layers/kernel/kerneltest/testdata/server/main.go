// SPDX-License-Identifier: Apache-2.0

// Command server is a Go program with goroutines on all the runtime's
// mechanisms: its own threads, timers, garbage collection, preemption by
// signals, and blocking reads.
package main

import (
	"bufio"
	"fmt"
	"os"
	"runtime"
	"sync"
	"time"
)

type node struct {
	next *node
	data [64]byte
}

func main() {
	runtime.GOMAXPROCS(4)
	var ticks, sums [4]chan int
	var mu sync.Mutex
	counts := map[string]int{}
	for i := range ticks {
		ticks[i], sums[i] = make(chan int), make(chan int)
		go func() {
			for range time.Tick(5 * time.Millisecond) {
				mu.Lock()
				counts[fmt.Sprint("tick ", i)]++
				mu.Unlock()
			}
		}()
		go func() {
			for n := range ticks[i] {
				sums[i] <- work(n)
			}
		}()
	}
	go func() { // is preempted by signals and makes garbage
		for {
			work(1000)
		}
	}()
	fmt.Println("ready")
	in := bufio.NewReader(os.Stdin)
	for {
		if _, err := in.ReadByte(); err != nil {
			return
		}
		fmt.Println(verify(&ticks, &sums, &mu, counts))
	}
}

func work(n int) int {
	var head *node
	for i := range n {
		head = &node{next: head}
		head.data[i%64] = 1
	}
	sum := 0
	for ; head != nil; head = head.next {
		for _, b := range head.data {
			sum += int(b)
		}
	}
	return sum
}

func verify(ticks, sums *[4]chan int, mu *sync.Mutex, counts map[string]int) string {
	mu.Lock()
	before := counts["tick 3"]
	mu.Unlock()
	for i := range ticks {
		ticks[i] <- 1000
	}
	for i := range sums {
		if n := <-sums[i]; n != 1000 {
			return fmt.Sprintf("goroutine %d counts %d", i, n)
		}
	}
	runtime.GC()
	for range 1000 {
		time.Sleep(5 * time.Millisecond)
		mu.Lock()
		n := counts["tick 3"]
		mu.Unlock()
		if n > before {
			return "OK"
		}
	}
	return "timers stand still"
}
