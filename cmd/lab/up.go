package lab

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
)

// Up builds a site with its daemons running, leaves it so, and prints what to try. On an error nothing is left.
func Up(ctx context.Context, o Options, out io.Writer) (err error) {
	o.Detached = true
	site, err := New(ctx, o)
	if err != nil {
		return err
	}
	left := false
	defer func() {
		if !left {
			err = errors.Join(err, site.Close())
		}
	}()
	ctx, cancel := context.WithTimeoutCause(ctx, stepTimeout, fmt.Errorf("not within %s", stepTimeout))
	defer cancel()
	for _, node := range []*Node{site.Peer, site.Gateway} {
		if err := node.StartDaemon(); err != nil {
			return err
		}
	}
	for _, node := range []*Node{site.Peer, site.Gateway} {
		if _, err := node.WaitReady(ctx); err != nil {
			return err
		}
	}
	if _, err := site.WaitRoutes(ctx); err != nil {
		return err
	}
	if _, err := fmt.Fprint(out, site.hints()); err != nil {
		return err
	}
	left = true
	return nil
}

// hints are commands to try.
func (s *Site) hints() string {
	return strings.NewReplacer(
		"{id}", s.ID, "{ns}", prefix+s.ID, "{binary}", s.options.Binary, "{gateway}", s.Gateway.Socket, "{peer}", s.Peer.Socket, "{state}", s.Gateway.StateDir,
		"{file}", s.Gateway.File, "{dir}", s.Dir,
	).Replace(`lab {id} is up. Its files, sockets and logs are in {dir}.

The gateway:
  export SLUICE_SOCKET={gateway} SLUICE_STATE_DIR={state}
  {binary} show status
  {binary} show bgp
  {binary} show policy
  {binary} show drops
  {binary} show workloads
  {binary} show flows
  {binary} explain --in eth0 --packet 'tcp 198.19.0.1:40000 > 203.0.113.10:80 flags=S'
Change its file, then:
  {binary} plan -c {file}
  {binary} apply -c {file} --confirm 1m
The peer:
  {binary} show tunnels --socket {peer}
The hosts:
  ip netns exec {ns}-client curl http://203.0.113.10/
  ip netns exec {ns}-client curl 'http://[2001:db8:100::10]/'
  ip netns exec {ns}-web-1 curl http://10.20.0.1/  (through the tunnel)
  ip netns exec {ns}-web-2 curl -m 2 http://198.51.100.10/  (its egress policy forbids it)
  ip netns exec {ns}-client ping -c 3 203.0.113.11
  ip netns exec {ns}-attacker curl -m 2 http://203.0.113.10:81/  (nothing lets it in: see show drops)
  ip netns exec {ns}-tor ip route show proto 186  (what BGP brought)
Take it down:
  {binary} lab down {id}
`)
}
