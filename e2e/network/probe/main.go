// SPDX-License-Identifier: Apache-2.0

// Command probe runs in a pod: it answers on ports, and tells a test where the pod
// can connect to.
package main

import (
	"context"
	"fmt"
	"io"
	"net"
	"os"
	"sync"
	"time"
)

// patience is how long a connection may take: its first packet may be lost, and is sent
// again after a second. Not every refused one is told so, as the kernel bounds how many
// such answers it gives.
const patience = 1500 * time.Millisecond

func main() {
	if len(os.Args) < 3 {
		fmt.Fprintln(os.Stderr, "usage: probe listen PORT... | dial ADDRESS... | resolve NAME...")
		os.Exit(2)
	}
	switch args := os.Args[2:]; os.Args[1] {
	case "listen":
		listen(args)
	case "dial":
		each(args, dial)
	case "resolve":
		each(args, resolve)
	default:
		fmt.Fprintf(os.Stderr, "probe %s: want listen, dial or resolve\n", os.Args[1])
		os.Exit(2)
	}
}

// listen greets whoever connects.
func listen(ports []string) {
	for _, port := range ports {
		listener, err := new(net.ListenConfig).Listen(context.Background(), "tcp", ":"+port)
		if err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		go func() {
			for {
				conn, err := listener.Accept()
				if err != nil {
					fmt.Fprintln(os.Stderr, err)
					os.Exit(1)
				}
				go func() {
					_, _ = io.WriteString(conn, "hello\n")
					_ = conn.Close()
				}()
			}
		}()
	}
	select {}
}

// each tries every argument, many at a time, and prints "ARGUMENT yes" or "ARGUMENT no ERROR".
func each(args []string, try func(ctx context.Context, arg string) error) {
	var wait sync.WaitGroup
	var mu sync.Mutex
	slots := make(chan struct{}, 256)
	for _, arg := range args {
		wait.Add(1)
		slots <- struct{}{}
		go func() {
			defer wait.Done()
			defer func() { <-slots }()
			ctx, cancel := context.WithTimeout(context.Background(), patience)
			defer cancel()
			err := try(ctx, arg)
			mu.Lock()
			defer mu.Unlock()
			if err != nil {
				fmt.Println(arg, "no", err)
				return
			}
			fmt.Println(arg, "yes")
		}()
	}
	wait.Wait()
}

func dial(ctx context.Context, address string) error {
	var dialer net.Dialer
	conn, err := dialer.DialContext(ctx, "tcp", address)
	if err != nil {
		return err
	}
	return conn.Close()
}

func resolve(ctx context.Context, name string) error {
	_, err := net.DefaultResolver.LookupHost(ctx, name)
	return err
}
