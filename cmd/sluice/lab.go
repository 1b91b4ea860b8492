package main

import "github.com/spf13/cobra"

func (c *cli) labCmd() *cobra.Command { return &cobra.Command{Use: "lab"} }
