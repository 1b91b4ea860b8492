package table_test

import (
	"math/rand/v2"
	"slices"
	"testing"

	"sluice/xdp/abi"
	"sluice/xdp/classify"
	"sluice/xdp/classify/classifytest"
	"sluice/xdp/table"
)

func TestWhatAMapIsKnownToHoldIsNotWrittenAgain(t *testing.T) {
	policies := []classify.Policy{{Name: "ingress", Rules: classifytest.Rules(rand.New(rand.NewPCG(3, 7)), classifytest.FW, 300)}}
	tables := compile(t, policies)
	maps := load(t, tables)
	var known table.Written
	fill := func(of *classify.Tables) {
		t.Helper()
		if err := known.Fill(maps, of); err != nil {
			t.Fatal(err)
		}
	}
	fill(tables)
	strange := abi.Rule{ID: 4711}
	if err := maps[table.Rules].Put(uint32(0), strange); err != nil {
		t.Fatal(err)
	}
	first := func() (r abi.Rule) {
		lookup(t, maps[table.Rules], uint32(0), &r)
		return r
	}
	fill(tables)
	if first() != strange {
		t.Fatal("the same array was written again")
	}
	// An array of the same length in other memory.
	other := *tables
	other.Rules = slices.Clone(tables.Rules)
	other.Rules[1].ID++
	fill(&other)
	refilled(t, maps[table.Rules], other.Rules)
	refilled(t, maps[table.Leaves], tables.Leaves)
	fill(tables)
	refilled(t, maps[table.Rules], tables.Rules)
	// A part of an array is another array.
	shorter := *tables
	shorter.Rules = tables.Rules[:len(tables.Rules)-1]
	fill(&shorter)
	refilled(t, maps[table.Rules], shorter.Rules)

	// After a failure nothing is known of the map that failed.
	closed, err := maps[table.Rules].Clone()
	if err != nil {
		t.Fatal(err)
	}
	good := maps[table.Rules]
	maps[table.Rules] = closed
	if err := closed.Close(); err != nil {
		t.Fatal(err)
	}
	if err := known.Fill(maps, tables); err == nil {
		t.Error("a map that is closed was filled")
	}
	maps[table.Rules] = good
	fill(tables)
	refilled(t, maps[table.Rules], tables.Rules)

	// Other maps of the same names are others.
	maps = load(t, tables)
	if err := maps[table.Rules].Put(uint32(0), strange); err != nil {
		t.Fatal(err)
	}
	fill(tables)
	refilled(t, maps[table.Rules], tables.Rules)
}
