package lab

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"os/exec"
	"slices"
	"strings"
	"time"

	"sluice/control/api"
)

// bgp: the sessions are up and the ToR has what the file advertises.
func (d *demo) bgp(ctx context.Context) (string, error) {
	t, err := d.WaitRoutes(ctx)
	figures := fmt.Sprintf("%d sessions up, %d prefixes in the ToR's table, %s after the start",
		t.Established(), len(t.Entries), round(time.Since(d.started)))
	if err == nil {
		d.noted = strings.Join(advertised, " ")
	}
	return figures, err
}

// http: the client is answered by both workloads, by both families.
func (d *demo) http(ctx context.Context) (string, error) {
	var figures []string
	for i := range Web4 {
		for _, server := range []netip.Addr{Web4[i], Web6[i]} {
			took, err := d.request(ctx, d.Client, server, "/hello", fmt.Sprintf("web-%d /hello", i+1))
			if err != nil {
				return strings.Join(figures, ", "), fmt.Errorf("%s: %w", server, err)
			}
			figures = append(figures, fmt.Sprintf("%s in %s", server, round(took)))
		}
	}
	d.stream = d.Client.StartStream(context.WithoutCancel(ctx), slices.Concat(Web4, Web6)...)
	return "client answered by " + strings.Join(figures, ", "), nil
}

// request asks until it is answered, once more for the time that it takes, and compares the answer.
func (d *demo) request(ctx context.Context, from *Namespace, server netip.Addr, path, want string) (time.Duration, error) {
	at := netip.AddrPortFrom(server, 80)
	if err := poll(ctx, func() error { return get(ctx, time.Second, from, at, path, want) }); err != nil {
		return 0, err
	}
	start := time.Now()
	err := get(ctx, requestTimeout, from, at, path, want)
	return time.Since(start), err
}

// get asks once. Whoever polls asks again, and needs little patience.
func get(ctx context.Context, patience time.Duration, from *Namespace, server netip.AddrPort, path, want string) error {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	body, err := from.Get(ctx, server, path)
	if err == nil && strings.TrimSpace(body) != want {
		err = fmt.Errorf("answered %q, want %q", body, want)
	}
	return err
}

// egress: a workload reaches what its file allows and nothing else, and the drop is counted.
func (d *demo) egress(ctx context.Context) (string, error) {
	w := d.Workload(2)
	for _, resolver := range []netip.Addr{Resolver4, Resolver6} {
		if _, err := w.Resolve(ctx, resolver, "www.example.net"); err != nil {
			return "", fmt.Errorf("web-2 may ask the resolver %s: %w", resolver, err)
		}
	}
	before, err := d.reason(ctx, "tc", "web-2", "default-drop")
	if err != nil {
		return "", err
	}
	for _, server := range []netip.Addr{Client4, Client6} {
		// The box itself is answered there, so it is the policy that keeps the workload away.
		err := get(ctx, time.Second, w, netip.AddrPortFrom(server, 80), "/forbidden", "")
		if err == nil || !refused(err) {
			return "", fmt.Errorf("web-2 must not reach %s port 80, and yet: %v", server, err)
		}
	}
	after, err := d.reason(ctx, "tc", "web-2", "default-drop")
	if err != nil {
		return "", err
	}
	dropped := after.Packets - before.Packets
	figures := fmt.Sprintf("web-2: DNS to the resolvers passes, HTTP to %s and %s dropped: %d packets, %s", Client4, Client6, dropped, after.Reason)
	if dropped < 2 {
		return figures, errors.New("want at least a packet for each connection")
	}
	return figures, nil
}

// own: the box itself resolves a name and fetches something, while its ingress and egress default is drop.
func (d *demo) own(ctx context.Context) (string, error) {
	policies, err := api.Show[[]api.Policy](ctx, d.gateway, "policy")
	if err != nil {
		return "", err
	}
	for _, p := range policies {
		if (p.Name == "ingress" || p.Name == "egress") && p.Default != "drop" {
			return "", fmt.Errorf("the default of policy %s is %s: that proves nothing", p.Name, p.Default)
		}
	}
	start := time.Now()
	found, err := d.Gateway.Resolve(ctx, Resolver4, "mirror.example.net")
	if err != nil {
		return "", err
	}
	resolved := time.Since(start)
	var figures []string
	for _, server := range append(found, Client6) {
		took, err := d.request(ctx, d.Gateway.Namespace, server, "/update", "client /update")
		if err != nil {
			return "", fmt.Errorf("fetch from %s: %w", server, err)
		}
		figures = append(figures, fmt.Sprintf("%s in %s", server, round(took)))
	}
	return fmt.Sprintf("under default: drop the box resolves a name in %s and fetches from %s", round(resolved), strings.Join(figures, ", ")), nil
}

// explain asks for the fate of a packet of the flood, and prints what the command prints.
func (d *demo) explain(ctx context.Context) (string, error) {
	packet := fmt.Sprintf("tcp %s:40000 > %s:80 flags=S", Attackers4.Addr().Next(), Web4[0])
	args := []string{"explain", "--in", "eth0", "--packet", packet, "--socket", d.Gateway.Socket}
	command := exec.CommandContext(ctx, d.options.Binary, args...)
	command.Env = cleanEnvironment(command.Environ())
	text, err := command.CombinedOutput()
	if err != nil {
		return "", fmt.Errorf("sluice explain: %w\n%s", err, text)
	}
	e, err := d.gateway.Explain(ctx, api.ExplainRequest{Interface: "eth0", Packet: packet})
	if err != nil {
		return "", err
	}
	if len(e.Hooks) == 0 {
		return "", errors.New("no hook answered")
	}
	d.noted = "$ sluice explain --in eth0 --packet '" + packet + "'\n" + string(text)
	h := e.Hooks[0]
	figures := fmt.Sprintf("%s says %s, %s, by %s at %s:%d", h.Hook, h.Verdict, h.Reason, h.Rule, h.File, h.Line)
	if h.Verdict != "drop" || h.Rule != "ingress/no-attackers" || h.Line == 0 || e.Bug != "" {
		raw, _ := json.Marshal(e)
		return figures, fmt.Errorf("want a drop by ingress/no-attackers, with its line\n%s", raw)
	}
	return figures, nil
}
