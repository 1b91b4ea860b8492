package main

import (
	"log/slog"
	"os"
	"sluice/xdp/classify/classifytest"
	"testing"
	"time"
)

func TestTry(t *testing.T) {
	w, err := newWorkshop(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	o := Quick
	o.Rounds = 3
	b := &bench{o: o, w: w, log: slog.New(slog.NewTextHandler(os.Stderr, nil)), contents: map[string]*Content{}, results: &Results{}}
	s := time.Now()
	r, err := b.shape(t.Context(), classifytest.ACL, 20000)
	t.Logf("%+v %v %v", r, err, time.Since(s))
	s = time.Now()
	t.Log(b.drop(t.Context(), Prefixes, 1000), time.Since(s))
	s = time.Now()
	t.Log(b.drop(t.Context(), Hosts, 1000), time.Since(s))
	s = time.Now()
	t.Log(b.drop(t.Context(), Rules, 1000), time.Since(s))
	s = time.Now()
	b.o.Forward = 1000
	t.Log(b.forward(t.Context()), time.Since(s))
	s = time.Now()
	t.Log(b.testRun(t.Context(), Prefixes, 1000), time.Since(s))
	s = time.Now()
	t.Log(b.testRun(t.Context(), Rules, 1000), time.Since(s))
}
