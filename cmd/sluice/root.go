package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"os"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/viper"

	"sluice/control/api"
	"sluice/control/daemon"
	"sluice/control/node/slots"
)

// cli is what every verb shares: where it prints, and the process settings.
type cli struct {
	out, err io.Writer
	now      func() time.Time
	settings *viper.Viper
	file     string // -c
	output   string // -o

	slots  func(stateDir string) slots.Options // of the node image
	reboot func(context.Context) error
}

func newCLI(out, err io.Writer) *cli {
	return &cli{out: out, err: err, now: time.Now, settings: viper.New(), slots: slots.Defaults, reboot: systemctlReboot}
}

// The process settings: flag, else SLUICE_*, else node: of the file, else the default. They never alter policy.
var settings = []struct{ flag, key, value, help string }{
	{"state-dir", "node.state_dir", daemon.DefaultStateDir, "the `DIR` of revisions and keys"},
	{"bpf-dir", "node.bpf_dir", daemon.DefaultBPFDir, "the `DIR` where the data path is pinned, on a bpffs"},
	{"socket", "node.socket", daemon.DefaultSocket, "the `PATH` of the API's unix socket"},
	{"log-level", "log_level", "info", "`LEVEL`: debug, info, warn or error"},
}

func (c *cli) root() *cobra.Command {
	root := &cobra.Command{
		Use:   "sluice",
		Short: "An XDP gateway: one binary, one YAML file",
		Long: `Exit codes: 0 done, 1 the answer is no (a bad file, a failed check), 2 wrong usage, 3 could not reach the daemon.
--state-dir, --bpf-dir, --socket and --log-level may also stand in the environment as SLUICE_STATE_DIR and so on; the
first three also under node: of the file that -c names.`,
		SilenceErrors: true,
		SilenceUsage:  true,
	}
	root.SetOut(c.out)
	root.SetErr(c.err)
	root.SetFlagErrorFunc(flagError)
	flags := root.PersistentFlags()
	flags.StringVarP(&c.output, "output", "o", "text", "`FORMAT`: text or json")
	for _, s := range settings {
		flags.String(s.flag, s.value, s.help)
		_ = c.settings.BindPFlag(s.key, flags.Lookup(s.flag))
		_ = c.settings.BindEnv(s.key, "SLUICE_"+strings.ToUpper(strings.ReplaceAll(s.flag, "-", "_")))
	}
	root.PersistentPreRunE = func(*cobra.Command, []string) error {
		if c.output != "text" && c.output != "json" {
			return usageError{fmt.Errorf("-o %s: say text or json", c.output)}
		}
		return c.readSettings()
	}
	root.AddCommand(
		c.runCmd(), c.checkCmd(), c.planCmd(), c.diffCmd(), c.applyCmd(), c.confirmCmd(), c.rollbackCmd(), c.historyCmd(),
		c.showCmd(), c.explainCmd(), c.banCmd(), c.unbanCmd(), c.drainCmd(), c.undrainCmd(), c.workloadCmd(), c.clearCmd(), c.monitorCmd(), c.captureCmd(), c.keyCmd(), c.doctorCmd(), c.supportCmd(), c.labCmd(), c.imageCmd(), c.tunnelCmd(), c.tunneldCmd(), c.bfddCmd(), c.downCmd(), c.holdCmd(), c.nodeCmd(), c.versionCmd(),
	)
	root.SetHelpCommand(helpCmd())
	root.InitDefaultHelpCmd()
	root.InitDefaultCompletionCmd()
	forEach(root, func(cmd *cobra.Command) {
		cmd.Args = usage(cmd.Args)
		if cmd.Long != "" { // help shows it alone
			cmd.Long = cmd.Short + ".\n\n" + cmd.Long
		}
		if !cmd.Runnable() { // it has verbs below it; cobra itself would take any word for a cry for help
			cmd.RunE = func(cmd *cobra.Command, _ []string) error { return cmd.Help() }
		}
	})
	return root
}

// helpCmd is cobra's own but for one thing: a verb that there is not is wrong usage.
func helpCmd() *cobra.Command {
	return &cobra.Command{
		Use:   "help [VERB]",
		Short: "Help about any verb",
		Args:  cobra.ArbitraryArgs,
		RunE: func(cmd *cobra.Command, args []string) error {
			about, rest, err := cmd.Root().Find(args)
			if err != nil || len(rest) > 0 {
				return usageError{fmt.Errorf("there is no verb %q; `%s --help` lists them", strings.Join(args, " "), cmd.Root().Name())}
			}
			about.InitDefaultHelpFlag()
			return about.Help()
		},
	}
}

// forEach visits a command and all below it.
func forEach(cmd *cobra.Command, visit func(*cobra.Command)) {
	visit(cmd)
	for _, child := range cmd.Commands() {
		forEach(child, visit)
	}
}

// usage makes a failed test of the arguments a usage error.
func usage(args cobra.PositionalArgs) cobra.PositionalArgs {
	if args == nil {
		args = cobra.NoArgs
	}
	return func(cmd *cobra.Command, given []string) error {
		if err := args(cmd, given); err != nil {
			return argsError(cmd, given, args(cmd, []string{"word"}) != nil)
		}
		return nil
	}
}

// readSettings takes node: from the file where one is given and readable. A bad file is not this place's to judge. Long lists are none
// of its settings, and would be most of what a verb has to do.
func (c *cli) readSettings() error {
	// A pipe would be empty for who reads it after us, and a device may never end.
	if info, err := os.Stat(c.file); err != nil || !info.Mode().IsRegular() {
		return nil
	}
	contents, err := os.ReadFile(c.file)
	if err != nil {
		return nil
	}
	c.settings.SetConfigType("yaml")
	_ = c.settings.ReadConfig(bytes.NewReader(daemon.Outline(contents)))
	return nil
}

func (c *cli) fileFlag(cmd *cobra.Command) {
	cmd.Flags().StringVarP(&c.file, "config", "c", daemon.DefaultFile, "the configuration `FILE`")
}

func (c *cli) socket() string { return c.settings.GetString("node.socket") }

func (c *cli) client() *api.Client { return api.NewClient(c.socket()) }

func (c *cli) logger() (*slog.Logger, error) {
	var level slog.Level
	if err := level.UnmarshalText([]byte(c.settings.GetString("log_level"))); err != nil {
		return nil, usageError{fmt.Errorf("--log-level %s: say debug, info, warn or error", c.settings.GetString("log_level"))}
	}
	return slog.New(slog.NewTextHandler(c.err, &slog.HandlerOptions{Level: level})), nil
}

func (c *cli) json() bool { return c.output == "json" }

// printJSON prints v as `-o json` does: indented, with the names of the API.
func (c *cli) printJSON(v any) error {
	e := json.NewEncoder(c.out)
	e.SetIndent("", "  ")
	e.SetEscapeHTML(false)
	return e.Encode(v)
}
