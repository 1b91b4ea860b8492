package main

import (
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	"sluice/control/api"
	"sluice/plural"
)

func (c *cli) rotateCmd() *cobra.Command {
	var request api.RotateRequest
	cmd := &cobra.Command{
		Use:   "rotate TUNNEL",
		Short: "Have a tunnel take new keys, without a lost packet",
		Long: `WireGuard takes two steps, for the other ends have to know the next public key before it is used:

  1. sluice key rotate TUNNEL --stage makes the next private key beside the present one (FILE.next) and prints its public key. Every
     other end adds that as a second entry of this node's public_keys, and applies.
  2. sluice key rotate TUNNEL uses it. What is sent waits for at most three seconds. Where a peer that is in touch does not take the key,
     the old one is in use again, and the error names the peer. Peers that are away are not waited for. The old private key stays
     beside the new one (FILE.old) until the next rotation, or until sluice key rotate TUNNEL --forget removes it.

IPsec takes one step. With static keys this end sends in its next epoch, for which the other ends stand ready: nothing is to be done
there. With keying ike charon negotiates new keys with every peer that is up.`,
		Example: "  sluice key rotate fra1 --stage\n  sluice key rotate fra1",
		Args:    cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			request.Tunnel = args[0]
			r, err := c.client().RotateKey(cmd.Context(), request)
			if err != nil {
				return err
			}
			if c.json() {
				return c.printJSON(r)
			}
			_, err = fmt.Fprint(c.out, rotatedText(r))
			return err
		},
	}
	cmd.Flags().BoolVar(&request.Forget, "forget", false, "remove the private key that WireGuard had before (FILE.old), and change nothing else")
	cmd.Flags().BoolVar(&request.Stage, "stage", false, "make WireGuard's next key, and leave the present one in use")
	cmd.MarkFlagsMutuallyExclusive("stage", "forget")
	return cmd
}

// rotatedText says what was done, what happens next, and what is left to do.
func rotatedText(r api.Rotated) string {
	var taking, away []string
	for _, p := range r.Peers {
		if p.InTouch {
			taking = append(taking, p.Name)
		} else {
			away = append(away, p.Name)
		}
	}
	var b strings.Builder
	switch {
	case r.Forgotten:
		fmt.Fprintf(&b, "the old key of tunnel %s is removed: %s\n", r.Tunnel, r.OldFile)
	case r.Staged:
		stagedText(&b, r)
	case r.Type == "wireguard":
		fmt.Fprintf(&b, "tunnel %s uses its new key: %s\n", r.Tunnel, r.PublicKey)
		if len(taking) > 0 {
			fmt.Fprintf(&b, "taken by %s: %s\n", plural.Of(len(taking), "peer", "peers"), strings.Join(taking, " "))
		}
		if len(away) > 0 {
			fmt.Fprintf(&b, "away, and not asked: %s. Those that do not have the new key cannot come back until they do\n", strings.Join(away, " "))
		}
		fmt.Fprintf(&b, "the old private key is in %s; when every peer is back: sluice key rotate %s --forget\n", r.OldFile, r.Tunnel)
		fmt.Fprintf(&b, "next, at the other ends: take %s out of public_keys, and apply\n", r.OldPublicKey)
	case r.Backend == "static":
		fmt.Fprintf(&b, "tunnel %s sends with new keys:\n", r.Tunnel)
		for _, p := range r.Peers {
			if p.InTouch {
				fmt.Fprintf(&b, "  %s: epoch %d, before %d\n", p.Name, p.Epoch, p.OldEpoch)
			} else {
				fmt.Fprintf(&b, "  %s: not set up, so nothing was changed; see: sluice show tunnels %s\n", p.Name, r.Tunnel)
			}
		}
		b.WriteString("the other ends follow by themselves; run the same there for the other direction\n")
	default:
		if len(taking) > 0 {
			fmt.Fprintf(&b, "tunnel %s: charon negotiates new keys with %s\n", r.Tunnel, strings.Join(taking, " "))
		}
		if len(away) > 0 {
			fmt.Fprintf(&b, "not up, so they get new keys when they are: %s\n", strings.Join(away, " "))
		}
		fmt.Fprintf(&b, "nothing is to be done at the other ends; see: sluice show tunnels %s\n", r.Tunnel)
	}
	return b.String()
}

func stagedText(b *strings.Builder, r api.Rotated) {
	if r.Again {
		fmt.Fprintf(b, "the next key of tunnel %s was staged before: %s\n", r.Tunnel, r.PublicKey)
	} else {
		fmt.Fprintf(b, "the next key of tunnel %s is staged: %s\n", r.Tunnel, r.PublicKey)
	}
	fmt.Fprintf(b, "it waits in %s; %s is still in use\n", r.File, r.OldPublicKey)
	fmt.Fprintf(b, "next, at the other ends: add it to this node's public_keys, behind %s, and apply:\n", r.OldPublicKey)
	fmt.Fprintf(b, "  public_keys: [%s, %s]\n", r.OldPublicKey, r.PublicKey)
	fmt.Fprintf(b, "then, here: sluice key rotate %s\n", r.Tunnel)
}
