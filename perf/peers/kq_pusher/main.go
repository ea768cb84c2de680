// Command kq_pusher pushes the lines of a file by kq's Pusher and says how long that took.
//
// It prints one line of JSON: {"count": 1000000, "seconds": 2.5}, from before the first push until
// Close has returned. kq asks for no acknowledgements, so whoever measures has to count what has
// arrived.
package main

import (
	"bufio"
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"log"
	"os"
	"strings"
	"time"

	"github.com/zeromicro/go-queue/kq"
	"github.com/zeromicro/go-zero/core/logx"
)

func main() {
	brokers := flag.String("brokers", "", "host:port,...")
	topic := flag.String("topic", "", "topic, which exists")
	file := flag.String("file", "", "one message a line")
	count := flag.Int("count", 0, "push so many of its lines; 0: all")
	keys := flag.Int("keys", 1000, "number of different keys, which follow each other")
	chunkBytes := flag.Int("chunk-bytes", 0, "WithChunkSize; 0: kq's default")
	flush := flag.Duration("flush-interval", 0, "WithFlushInterval; 0: kq's default")
	flag.Parse()

	lines := read(*file, *count)
	names := make([]string, *keys)
	for i := range names {
		names[i] = fmt.Sprintf("key-%05d", i)
	}
	logx.SetLevel(logx.ErrorLevel) // kq logs chunks that were lost, on stderr with logx's default
	var options []kq.PushOption
	if *chunkBytes > 0 {
		options = append(options, kq.WithChunkSize(*chunkBytes))
	}
	if *flush > 0 {
		options = append(options, kq.WithFlushInterval(*flush))
	}
	pusher := kq.NewPusher(strings.Split(*brokers, ","), *topic, options...)
	ctx := context.Background()
	began := time.Now()
	for i, line := range lines {
		if err := pusher.PushWithKey(ctx, names[i%len(names)], line); err != nil {
			log.Fatal(err)
		}
	}
	if err := pusher.Close(); err != nil {
		log.Fatal(err)
	}
	seconds := time.Since(began).Seconds()
	result := map[string]any{"count": len(lines), "seconds": seconds}
	if err := json.NewEncoder(os.Stdout).Encode(result); err != nil {
		log.Fatal(err)
	}
}

// read returns the first lines of a file; 0 stands for all.
func read(path string, count int) []string {
	file, err := os.Open(path)
	if err != nil {
		log.Fatal(err)
	}
	defer file.Close()
	var lines []string
	scanner := bufio.NewScanner(file)
	for scanner.Scan() && (count == 0 || len(lines) < count) {
		lines = append(lines, scanner.Text())
	}
	if err := scanner.Err(); err != nil {
		log.Fatal(err)
	}
	return lines
}
