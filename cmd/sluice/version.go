package main

import (
	"fmt"

	"github.com/spf13/cobra"
)

func (c *cli) versionCmd() *cobra.Command {
	return &cobra.Command{
		Use:     "version",
		Short:   "Print the version",
		Example: "  sluice version",
		RunE: func(*cobra.Command, []string) error {
			image := c.image()
			if c.json() {
				out := map[string]string{"version": version}
				if image != "" {
					out["image"] = image
				}
				return c.printJSON(out)
			}
			_, err := fmt.Fprintln(c.out, inImage(version, image))
			return err
		},
	}
}

// inImage is a version of the program, with that of the node image which it runs on.
func inImage(program, image string) string {
	if image == "" {
		return program
	}
	return program + " (image " + image + ")"
}
