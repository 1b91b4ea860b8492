package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"regexp"
	"time"

	"sluice/tests/bench/lane"
	"sluice/tests/bench/node"
)

// source is a neighbor that holds the table, in a namespace of its own: a BIRD, which waits for who connects.
type source struct {
	index int
	ns    *lane.Namespace
	bird  *birdProcess
}

// ownASN is the rivals'.
const ownASN = 65010

func asn(source int) int { return 65001 + source }

// link i is between the rivals and source i.
func link(i int) string { return fmt.Sprintf("up%d", i) }

func sourceAddress(i int) netip.Addr { return netip.AddrFrom4([4]byte{198, 18, byte(i), 1}) }
func rivalAddress(i int) netip.Addr  { return sourceAddress(i).Next() }

// startSources starts all of them; to read their configuration takes them half a minute.
func (b *bench) startSources(ctx context.Context) error {
	n := b.o.mostPeers()
	failed := make(chan error, n)
	b.sources = make([]*source, n)
	for i := range b.sources {
		b.sources[i] = &source{index: i}
		go func() { failed <- b.sources[i].start(ctx, b.dir, b.table) }()
	}
	var err error
	for range b.sources {
		err = errors.Join(err, <-failed)
	}
	return err
}

func (s *source) start(ctx context.Context, dir string, t table) (err error) {
	if s.ns, err = lane.NewNamespace(); err != nil {
		return err
	}
	config := filepath.Join(dir, fmt.Sprintf("source%d.conf", s.index))
	if err := s.configure(config, t); err != nil {
		return err
	}
	if s.bird, err = startBird(ctx, s.ns, config); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, 2*time.Minute)
	defer cancel()
	return node.Poll(ctx, 100*time.Millisecond, func() error {
		got, err := s.bird.ask("show route count", regexp.MustCompile(`of (\d+) routes`))
		if err == nil && got != len(t) {
			err = fmt.Errorf("source %d holds %d routes of %d", s.index, got, len(t))
		}
		return err
	})
}

func (s *source) configure(path string, t table) error {
	f, err := os.Create(path)
	if err != nil {
		return err
	}
	w := bufio.NewWriter(f)
	fmt.Fprintf(w, "log %q all;\nrouter id %s;\nprotocol device { scan time 1; }\n", path+".log", sourceAddress(s.index))
	fmt.Fprintf(w, "protocol bgp rival {\n local %s as %d;\n neighbor %s as %d;\n passive;\n ipv4 { import none; export all; };\n}\n",
		sourceAddress(s.index), asn(s.index), rivalAddress(s.index), ownASN)
	fmt.Fprintln(w, "protocol static { ipv4;")
	err = t.write(w)
	fmt.Fprintln(w, "}")
	return errors.Join(err, w.Flush(), f.Close())
}

func (b *bench) endSources() error {
	var errs []error
	for _, s := range b.sources {
		if s.bird != nil {
			errs = append(errs, s.bird.Close())
		}
		if s.ns != nil {
			errs = append(errs, s.ns.Close())
		}
	}
	return errors.Join(errs...)
}
