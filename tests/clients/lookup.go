// lookup [-4|-6] [-n TIMES] [-w MILLISECONDS] NAME...
//
// Go's own resolver for each name; prints what lookup.c prints.
package main

import (
	"context"
	"flag"
	"fmt"
	"net"
	"os"
	"strings"
	"time"
)

func main() {
	only4 := flag.Bool("4", false, "IPv4 only")
	only6 := flag.Bool("6", false, "IPv6 only")
	times := flag.Int("n", 1, "rounds")
	wait := flag.Int("w", 0, "milliseconds between rounds")
	flag.Parse()
	network := "ip"
	if *only4 {
		network = "ip4"
	} else if *only6 {
		network = "ip6"
	}
	resolver := net.Resolver{PreferGo: true}
	failed := false
	for round := 0; round < *times; round++ {
		for _, name := range flag.Args() {
			start := time.Now()
			found, err := resolver.LookupIP(context.Background(), network, name)
			took := time.Since(start).Seconds()
			if err != nil {
				failed = true
				fmt.Printf("%s\t%.6f\tfail\t%v\n", name, took, err)
				continue
			}
			texts := make([]string, len(found))
			for i, address := range found {
				texts[i] = address.String()
			}
			fmt.Printf("%s\t%.6f\tok\t%s\n", name, took, strings.Join(texts, " "))
		}
		time.Sleep(time.Duration(*wait) * time.Millisecond)
	}
	if failed {
		os.Exit(1)
	}
}
