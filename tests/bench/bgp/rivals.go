package main

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"

	"sluice/control/api"
	"sluice/tests/bench/lane"
	"sluice/tests/bench/node"
)

// Rival is who learns the table.
type Rival struct {
	Key, Label, Colour string
	start              func(ctx context.Context, b *bench, in *lane.Namespace, peers int) (speaker, error)
}

// Keys of the rivals.
const (
	Sluice = "sluice"
	BIRD   = "bird"
)

// Rivals are all, Sluice first.
var Rivals = []Rival{
	{Sluice, "Sluice", "#d1495b", startSluice},
	{BIRD, "BIRD 2", "#30638e", startBIRD},
}

// speaker is a rival that runs.
type speaker interface {
	PID() int
	Learned(ctx context.Context) (int, error) // paths, of all peers
	Close() error
}

type sluice struct {
	*node.Node
	client *api.Client
}

func startSluice(ctx context.Context, b *bench, in *lane.Namespace, peers int) (speaker, error) {
	n, err := node.Start(ctx, b.binary, in, map[string][]byte{"sluice.yaml": []byte(sluiceText(peers))}, "--log-level", "info")
	if err != nil {
		return nil, err
	}
	return &sluice{n, api.NewClient(n.Path("sock"))}, nil
}

// sluiceText has no filter on packets: what is measured is the speaker in the daemon that is released.
func sluiceText(peers int) string {
	var b strings.Builder
	b.WriteString("interfaces:\n")
	for i := range peers {
		fmt.Fprintf(&b, "  - {name: %s, role: uplink, addresses: [%s/24], xdp: {mode: none}}\n", link(i), rivalAddress(i))
	}
	fmt.Fprintf(&b, "bgp:\n  asn: %d\n  router_id: %s\n  neighbors:\n", ownASN, rivalAddress(0))
	for i := range peers {
		fmt.Fprintf(&b, "    - {name: source-%d, address: %s, asn: %d}\n", i, sourceAddress(i), asn(i))
	}
	fmt.Fprintf(&b, "  learn: {ecmp: %d, accept: [{prefix: 0.0.0.0/0, le: 24}]}\n", peers)
	return b.String()
}

func (s *sluice) PID() int { return s.Node.PID }

func (s *sluice) Learned(ctx context.Context) (paths int, err error) {
	neighbors, err := api.Show[[]api.Neighbor](ctx, s.client, "bgp")
	for _, n := range neighbors {
		for _, f := range n.Families {
			paths += int(f.Accepted)
		}
	}
	return paths, err
}

func (s *sluice) Close() error {
	s.client.Close()
	return s.Node.Close()
}

type bird struct {
	*birdProcess
	peers int
}

func startBIRD(ctx context.Context, b *bench, in *lane.Namespace, peers int) (speaker, error) {
	config := filepath.Join(b.dir, "rival.conf")
	if err := os.WriteFile(config, []byte(birdText(config, peers)), 0o600); err != nil {
		return nil, err
	}
	p, err := startBird(ctx, in, config)
	return &bird{p, peers}, err
}

func birdText(path string, peers int) string {
	var b strings.Builder
	fmt.Fprintf(&b, "log %q all;\nrouter id %s;\nprotocol device {}\n", path+".log", rivalAddress(0))
	fmt.Fprintf(&b, "protocol kernel { merge paths on limit %d; ipv4 { import none; export all; }; }\n", peers)
	for i := range peers {
		fmt.Fprintf(&b, "protocol bgp source%d {\n local %s as %d;\n neighbor %s as %d;\n connect delay time 1; connect retry time 1;\n"+
			" ipv4 { import where net ~ [ 0.0.0.0/0{0,24} ]; export none; };\n}\n", i, rivalAddress(i), ownASN, sourceAddress(i), asn(i))
	}
	return b.String()
}

func (r *bird) PID() int { return r.pid }

func (r *bird) Learned(context.Context) (paths int, err error) {
	for i := range r.peers {
		n, err := r.ask(fmt.Sprintf("show protocols all source%d", i), regexp.MustCompile(`(\d+) imported`))
		if err != nil {
			return 0, err
		}
		paths += n
	}
	return paths, nil
}
