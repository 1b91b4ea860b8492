package netns

import (
	"fmt"
	"net/netip"
	"sync"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"

	"sluice/control/api"
)

// manyWorkloads is what an orchestrator brings up at its start.
const manyWorkloads = 500

// manyVeths makes the veths of many workloads, whose other ends are in the namespace of web-2.
func (s *site) manyVeths(n int) []api.WorkloadSpec {
	s.t.Helper()
	var specs []api.WorkloadSpec
	inside := s.Workload(2)
	first := netip.MustParseAddr("10.77.0.1")
	for i := range n {
		name := fmt.Sprintf("m%d", i)
		specs = append(specs, api.WorkloadSpec{Name: name, Interface: name, Addresses: []string{first.String()}, Policy: web2Policy})
		first = first.Next()
	}
	ns, err := netns.GetFromName(inside.Name)
	if err != nil {
		s.t.Fatal(err)
	}
	defer ns.Close()
	err = s.Gateway.Do(func() error {
		for _, w := range specs {
			attrs := netlink.NewLinkAttrs()
			attrs.Name = w.Interface
			err := netlink.LinkAdd(&netlink.Veth{LinkAttrs: attrs, PeerName: w.Interface, PeerNamespace: netlink.NsFd(ns)})
			if err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		s.t.Fatal(err)
	}
	return specs
}

func TestHundredsOfWorkloadsAreAddedOneByOneAndSideBySide(t *testing.T) {
	s := withoutWeb2(t)
	s.start()
	specs := s.manyVeths(manyWorkloads)
	names := make([]string, len(specs))
	for i, w := range specs {
		names[i] = w.Name
	}
	add := func(w ...api.WorkloadSpec) {
		done, err := s.api.AddWorkloads(t.Context(), api.WorkloadAdd{Workloads: w})
		if err != nil {
			t.Error(err)
		}
		for _, d := range done {
			if d.State != api.WorkloadAttached {
				t.Errorf("%+v", d)
			}
		}
	}
	remove := func(names ...string) {
		if _, err := s.api.DeleteWorkloads(t.Context(), api.WorkloadDelete{Names: names}); err != nil {
			t.Error(err)
		}
	}
	timed := func(what string, f func()) {
		begin := time.Now()
		f()
		t.Logf("%s: %s", what, time.Since(begin).Round(time.Millisecond))
	}
	if e := s.status().Engine; !e.Applied {
		t.Fatalf("%+v", e)
	}
	const inTurn = 20
	timed("one by one, 20", func() {
		for _, w := range specs[:inTurn] {
			add(w)
		}
	})
	timed("side by side, 480", func() {
		var wait sync.WaitGroup
		for _, w := range specs[inTurn:] {
			wait.Go(func() { add(w) })
		}
		wait.Wait()
	})
	if list := show[[]api.Workload](s, "workloads"); len(list) != 1+manyWorkloads {
		t.Errorf("show workloads has %d", len(list))
	}
	timed("one more of 500 deleted", func() { remove(names[7]) })
	timed("one more of 500 added", func() { add(specs[7]) })
	timed("500 unchanged", func() { add(specs...) })
	timed("500 deleted", func() { remove(names...) })
	if e := s.status().Engine; !e.Applied {
		t.Errorf("%+v", e)
	}
}
