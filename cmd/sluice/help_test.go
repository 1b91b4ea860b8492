package main

import (
	"slices"
	"strings"
	"testing"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
)

// operatorVerbs are those that an operator calls: nothing hidden, nothing of cobra's own, nothing that only has verbs
// below it.
func operatorVerbs(root *cobra.Command) (out []*cobra.Command) {
	forEach(root, func(cmd *cobra.Command) {
		words := strings.Fields(cmd.CommandPath())
		if cmd.Hidden || cmd.HasSubCommands() || slices.Contains(words, "help") || slices.Contains(words, "completion") {
			return
		}
		out = append(out, cmd)
	})
	return out
}

// TestEveryVerbHasExamplesThatCanBeTyped: words and flags of each parse, up to where the daemon would be asked.
func TestEveryVerbHasExamplesThatCanBeTyped(t *testing.T) {
	verbs := operatorVerbs(newCLI(nil, nil).root())
	if len(verbs) < 30 {
		t.Fatalf("%d verbs", len(verbs))
	}
	for _, verb := range verbs {
		t.Run(verb.CommandPath(), func(t *testing.T) {
			own := false
			for line := range strings.Lines(verb.Example) {
				words := shellWords(t, line)
				root := newCLI(nil, nil).root()
				found, rest, err := root.Find(words[1:])
				if err != nil || words[0] != "sluice" {
					t.Fatalf("%q: %v", line, err)
				}
				own = own || found.CommandPath() == verb.CommandPath()
				if err := found.ParseFlags(rest); err != nil {
					t.Errorf("%q: %v", line, err)
				}
				if err := found.Args(found, found.Flags().Args()); err != nil {
					t.Errorf("%q: %v", line, err)
				}
			}
			if !own {
				t.Errorf("it has no example of its own: %q", verb.Example)
			}
		})
	}
}

// TestHelpBeginsWithWhatTheVerbIsFor and says the exit code where a script asks for it.
func TestHelpBeginsWithWhatTheVerbIsFor(t *testing.T) {
	no := map[string]bool{} // verbs whose answer may be no
	for _, verb := range []string{"check", "plan", "diff", "apply", "confirm", "rollback", "unban", "workload del", "doctor", "lab run"} {
		no["sluice "+verb] = true
	}
	for _, verb := range operatorVerbs(newCLI(nil, nil).root()) {
		got := sluice(t, append(strings.Fields(verb.CommandPath())[1:], "--help")...)
		if !strings.HasPrefix(got.out, verb.Short) {
			t.Errorf("%s --help begins otherwise:\n%s", verb.CommandPath(), got.out)
		}
		if says := strings.Contains(strings.ReplaceAll(got.out, "\n", " "), "Exit code 1"); says != no[verb.CommandPath()] {
			t.Errorf("%s --help says its exit code: %v", verb.CommandPath(), says)
		}
		verb.Flags().VisitAll(func(f *pflag.Flag) {
			if f.Usage == "" || strings.HasSuffix(f.Usage, ".") {
				t.Errorf("%s --%s: %q", verb.CommandPath(), f.Name, f.Usage)
			}
		})
	}
}

// shellWords splits a line as a shell does, up to a pipe, a redirection or a comment. It knows both quotes and no escapes.
func shellWords(t *testing.T, line string) (words []string) {
	t.Helper()
	word, quote := "", rune(0)
	for _, r := range strings.TrimSpace(line) + " " {
		switch {
		case quote != 0 && r == quote:
			quote = 0
		case quote != 0:
			word += string(r)
		case r == '\'' || r == '"':
			quote = r
		case r == ' ' && word != "":
			if strings.ContainsAny(word[:1], "|>#") {
				return words
			}
			words, word = append(words, word), ""
		case r != ' ':
			word += string(r)
		}
	}
	if quote != 0 || len(words) < 2 {
		t.Fatalf("%q is no example", line)
	}
	return words
}
