package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"os"

	"github.com/spf13/cobra"

	"sluice/control/api"
	"sluice/control/daemon"
	"sluice/control/support"
)

// supportNouns are what a ticket shows of the daemon: flows, bans and learned routes are other people's traffic, and long.
var supportNouns = []string{"status", "interfaces", "tunnels", "policy", "drops", "reasons", "sets", "workloads", "bgp", "sockets"}

func (c *cli) supportCmd() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "support [FILE]",
		Short: "Pack what a ticket needs into one tar.gz",
		Long: `Version, configuration without its comments, what show tells, the doctor's findings, pins, links, routes, rules, qdiscs, counters of
IPsec, the journal's end and the kernel's lines about all that. Works without a daemon too, and MANIFEST.txt says what could not be had.

No key is in it: key files are not packed, no command is asked that tells keys, and what key files hold is taken out of everything else.
It does have addresses, names and rules of this machine. FILE is sluice-support-TIME.tar.gz here unless given; - is the standard output.`,
		Example: "  sluice support\n  sluice support /tmp/ticket-42.tar.gz",
		Args:    cobra.MaximumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			now := c.now()
			path := "sluice-support-" + now.UTC().Format("20060102T150405Z") + ".tar.gz"
			if len(args) == 1 {
				path = args[0]
			}
			var bundle bytes.Buffer
			at := c.places(cmd)
			failed, err := daemon.Support(cmd.Context(), &bundle, daemon.SupportOptions{
				Version: version, StateDir: at.state, Doctor: c.doctorOptions(cmd, at),
				Shown: c.supportEntries(), Now: now,
			})
			if err != nil {
				return err
			}
			for _, f := range failed {
				fmt.Fprintf(c.err, "incomplete: %s\n", f)
			}
			if path == "-" {
				_, err := c.out.Write(bundle.Bytes())
				return err
			}
			if err := writeNew(path, bundle.Bytes()); err != nil {
				return err
			}
			if c.json() {
				return c.printJSON(struct {
					File       string   `json:"file"`
					Bytes      int      `json:"bytes"`
					Incomplete []string `json:"incomplete"`
				}{path, bundle.Len(), append([]string{}, failed...)})
			}
			_, err = fmt.Fprintf(c.out, "%s, %s\n", path, bytesText(int64(bundle.Len())))
			return err
		},
	}
	c.fileFlag(cmd)
	return cmd
}

// writeNew never writes over what is there, nor through somebody's link.
func writeNew(path string, data []byte) error {
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return fmt.Errorf("%w: name another FILE", err)
	}
	_, err = f.Write(data)
	if closed := f.Close(); err == nil {
		err = closed
	}
	if err != nil {
		os.Remove(path)
		return fmt.Errorf("write %s: %w", path, err)
	}
	return nil
}

// supportEntries are each noun as text and as JSON, of one answer of the daemon, and the history.
func (c *cli) supportEntries() []support.Entry {
	var out []support.Entry
	for _, noun := range supportNouns {
		out = append(out, support.Entry{Name: "show/" + noun + ".txt", Write: func(ctx context.Context, w io.Writer) error {
			raw, err := api.Show[json.RawMessage](ctx, c.client(), noun)
			if err != nil {
				return err
			}
			to := *c
			to.out = w
			return printers[noun](&to, raw)
		}}, support.Entry{Name: "show/" + noun + ".json", Write: func(ctx context.Context, w io.Writer) error {
			raw, err := api.Show[json.RawMessage](ctx, c.client(), noun)
			if err != nil {
				return err
			}
			to := *c
			to.out = w
			return to.printJSON(raw)
		}})
	}
	return append(out, support.Entry{Name: "show/history.json", Write: func(ctx context.Context, w io.Writer) error {
		history, err := c.client().History(ctx)
		if err != nil {
			return err
		}
		e := json.NewEncoder(w)
		e.SetIndent("", "  ")
		return e.Encode(history)
	}})
}
