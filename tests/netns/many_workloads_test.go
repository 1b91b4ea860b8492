package netns

import (
	"fmt"
	"net/netip"
	"os"
	"strconv"
	"sync"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"

	"sluice/control/api"
)

const (
	someWorkloads     = 60 // what SLUICE_MANY_WORKLOADS says otherwise: hundreds are what an orchestrator brings up at its start
	workloadsInTurn   = 10
	manyWorkloadsText = "SLUICE_MANY_WORKLOADS"
)

// manyWorkloads is how many the test is to add.
func manyWorkloads(t *testing.T) int {
	t.Helper()
	text := os.Getenv(manyWorkloadsText)
	if text == "" {
		return someWorkloads
	}
	n, err := strconv.Atoi(text)
	if err != nil || n <= workloadsInTurn || n > 2000 {
		t.Fatalf("%s=%s: say a number from %d to 2000", manyWorkloadsText, text, workloadsInTurn+1)
	}
	return n
}

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

// Added one by one they are recast from one generation into the other; side by side as many as wait are one change.
func TestManyWorkloadsAreAddedOneByOneAndSideBySide(t *testing.T) {
	t.Parallel()
	s := withoutWeb2(t)
	s.start()
	specs := s.manyVeths(manyWorkloads(t))
	names := make([]string, len(specs))
	for i, w := range specs {
		names[i] = w.Name
	}
	if e := s.status().Engine; !e.Applied {
		t.Fatalf("%+v", e)
	}
	rest := specs[workloadsInTurn:]
	timed := func(what string, n int, f func()) {
		begin := time.Now()
		f()
		t.Logf("%s: %s", fmt.Sprintf(what, n), time.Since(begin).Round(time.Millisecond))
	}
	timed("%d one by one", workloadsInTurn, func() {
		for _, w := range specs[:workloadsInTurn] {
			s.addMany(w)
		}
	})
	timed("%d side by side", len(rest), func() {
		var wait sync.WaitGroup
		for _, w := range rest {
			wait.Go(func() { s.addMany(w) })
		}
		wait.Wait()
	})
	if list := show[[]api.Workload](s, "workloads"); len(list) != 1+len(specs) {
		t.Errorf("show workloads has %d", len(list))
	}
	timed("one of %d deleted", len(specs), func() { s.deleteMany(names[7]) })
	timed("one of %d added", len(specs), func() { s.addMany(specs[7]) })
	timed("%d unchanged", len(specs), func() { s.addMany(specs...) })
	timed("%d deleted", len(specs), func() { s.deleteMany(names...) })
	timed("%d added at once", len(specs), func() { s.addMany(specs...) })
	s.deleteMany(names...)
	if list := show[[]api.Workload](s, "workloads"); len(list) != 1 {
		t.Errorf("show workloads has %d after all were deleted", len(list))
	}
	if e := s.status().Engine; !e.Applied {
		t.Errorf("%+v", e)
	}
}

// addMany adds workloads in one request; it may be called side by side.
func (s *site) addMany(w ...api.WorkloadSpec) {
	s.t.Helper()
	done, err := s.api.AddWorkloads(s.t.Context(), api.WorkloadAdd{Workloads: w})
	if err != nil {
		s.t.Error(err)
	}
	if len(done) != len(w) {
		s.t.Errorf("%d of %d workloads came back", len(done), len(w))
	}
	for _, d := range done {
		if d.State != api.WorkloadAttached {
			s.t.Errorf("%+v", d)
		}
	}
}

func (s *site) deleteMany(names ...string) {
	s.t.Helper()
	if _, err := s.api.DeleteWorkloads(s.t.Context(), api.WorkloadDelete{Names: names}); err != nil {
		s.t.Error(err)
	}
}
