package main

import (
	"fmt"

	"sluice/control/api"
)

// printBoot says which configuration a node image found at boot, and what became of it.
func printBoot(c *cli, b api.Boot) {
	fmt.Fprintf(c.out, "boot        %s\n", b.Text())
	for _, p := range b.Problems {
		fmt.Fprintf(c.out, "  problem   %s\n", p)
	}
}
