package main

import (
	"fmt"

	"github.com/aymanbagabas/go-udiff"
	"github.com/spf13/cobra"

	"sluice/control/api"
	"sluice/control/daemon"
)

// fileDiff is one file that differs; the file of the configuration itself has an empty Path.
type fileDiff struct {
	Path    string `json:"path"`
	Unified string `json:"unified"`
}

func (c *cli) diffCmd() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "diff",
		Short: "Show how a file and its set files differ from the live revision",
		Long: `The set files are those that belong to the revision: watched ones do not. Exit code 1 where the file is bad; 0 whether
they differ or not.`,
		Example: "  sluice diff -c new.yaml",
		RunE: func(cmd *cobra.Command, _ []string) error {
			candidate, err := daemon.Load(c.file)
			if err != nil {
				return err
			}
			live, err := c.client().Config(cmd.Context(), 0)
			if err != nil {
				return err
			}
			diffs := differences(live, candidate)
			if c.json() {
				return c.printJSON(diffs)
			}
			for _, d := range diffs {
				fmt.Fprint(c.out, d.Unified)
			}
			if len(diffs) == 0 {
				fmt.Fprintf(c.out, "%s is revision %d\n", c.file, live.Meta.Number)
			}
			return nil
		},
	}
	c.fileFlag(cmd)
	return cmd
}

func differences(live api.StoredConfig, candidate api.Candidate) []fileDiff {
	diffs := []fileDiff{}
	add := func(path, name string, before, after []byte) {
		from := fmt.Sprintf("revision %d %s", live.Meta.Number, name)
		if text := udiff.Unified(from, name, string(before), string(after)); text != "" {
			diffs = append(diffs, fileDiff{Path: path, Unified: text})
		}
	}
	add("", candidate.Name, live.Bytes, candidate.Bytes)
	before := map[string][]byte{}
	for _, f := range live.Files {
		before[f.Path] = f.Contents
	}
	for _, f := range candidate.Files {
		add(f.Path, f.Path, before[f.Path], f.Contents)
		delete(before, f.Path)
	}
	for _, f := range live.Files { // those that are named no more, in their order
		if contents, gone := before[f.Path]; gone {
			add(f.Path, f.Path, contents, nil)
		}
	}
	return diffs
}
