package main

import (
	"fmt"
	"strconv"

	"github.com/spf13/cobra"

	"sluice/control/api"
)

func (c *cli) rollbackCmd() *cobra.Command {
	var confirm lifetime
	var message string
	cmd := &cobra.Command{
		Use:   "rollback [N]",
		Short: "Apply the content of revision N as a new revision, or end a pending one",
		Long: `While a revision waits to be confirmed, rollback without N (or with the one before it) goes back to that at once. Else: the file and its set files as they were; bans, watched sets and keys stay as they are. It may be confirmed, and goes
back, as apply does. Exit code 1 where it is refused or the machine went back.`,
		Example: `  sluice rollback
  sluice history
  sluice rollback 12 --confirm 2m -m 'port 443 was a mistake'`,
		Args: cobra.MaximumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			n := 0
			if len(args) > 0 {
				var err error
				if n, err = strconv.Atoi(args[0]); err != nil || n < 1 {
					return usageError{fmt.Errorf("%q is no revision; `sluice history` lists them", args[0])}
				}
			}
			told := c.tellOfChecks(cmd.Context())
			result, err := c.client().Rollback(cmd.Context(), api.RollbackRequest{
				Revision: n, ConfirmSeconds: confirm.seconds(), Message: message, Author: author(),
			})
			told()
			if err != nil {
				return err
			}
			return c.printResult(result)
		},
	}
	applyFlags(cmd, &confirm, &message)
	return cmd
}
