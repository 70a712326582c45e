// Counts words in several goroutines.
package main

// #include <stdint.h>
import "C"

import (
	"bytes"
	"fmt"
	"runtime"
	"sort"
	"unsafe"
)

func count(text []byte) map[string]int {
	counts := map[string]int{}
	for _, word := range bytes.Fields(text) {
		counts[string(word)]++
	}
	return counts
}

func serve(text []byte) []byte {
	const parts = 4
	results := make(chan map[string]int)
	from := 0
	for part := 1; part <= parts; part++ {
		to := len(text) * part / parts
		for to < len(text) && to > from && text[to-1] != ' ' {
			to++
		}
		if to < from {
			to = from
		}
		go func(piece []byte) { results <- count(piece) }(text[from:to])
		from = to
	}
	total := map[string]int{}
	for part := 0; part < parts; part++ {
		for word, number := range <-results {
			total[word] += number
		}
	}
	words := make([]string, 0, len(total))
	for word := range total {
		words = append(words, word)
	}
	sort.Strings(words)
	var reply bytes.Buffer
	for _, word := range words {
		fmt.Fprintf(&reply, "%s %d\n", word, total[word])
	}
	runtime.GC()
	return reply.Bytes()
}

// Returns the length of the reply, which is written if there is room for it; -1 if serving it panicked.
//
//export goServe
func goServe(data unsafe.Pointer, length C.uint64_t, reply unsafe.Pointer, capacity C.uint64_t) (used C.int64_t) {
	defer func() {
		if recover() != nil {
			used = -1
		}
	}()
	text := unsafe.Slice((*byte)(data), int(length))
	if string(text) == "do panic" {
		panic("asked to")
	}
	answer := serve(text)
	if len(answer) <= int(capacity) {
		copy(unsafe.Slice((*byte)(reply), int(capacity)), answer)
	}
	return C.int64_t(len(answer))
}

func main() {}
