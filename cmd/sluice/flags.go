package main

import (
	"errors"
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"sluice/control/api"
)

// flagError says what is wrong with a flag in the words of its verb; the values below say what would be right.
func flagError(cmd *cobra.Command, err error) error {
	var invalid *pflag.InvalidValueError
	var missing *pflag.ValueRequiredError
	var unknown *pflag.NotExistError
	switch {
	case errors.As(err, &invalid) && invalid.GetFlag().Value.Type() == "bool":
		err = fmt.Errorf("--%s=%s: it takes no value", invalid.GetFlag().Name, invalid.GetValue())
	case errors.As(err, &invalid):
		value := invalid.GetValue()
		if value == "" {
			value = `""`
		}
		err = fmt.Errorf("--%s %s: %w", invalid.GetFlag().Name, value, invalid.Unwrap())
	case errors.As(err, &missing):
		what, _ := pflag.UnquoteUsage(missing.GetFlag())
		article := "a"
		if strings.ContainsAny(what[:min(1, len(what))], "AEIO") {
			article = "an"
		}
		err = fmt.Errorf("--%s needs %s %s behind it", missing.GetFlag().Name, article, what)
	case errors.As(err, &unknown) && unknown.GetSpecifiedName() == "name" && strings.Contains(cmd.Use, "NAME"):
		err = fmt.Errorf("%w: the name is a word of its own; write it as: %s", err, useLine(cmd))
	case errors.As(err, &unknown) && unknown.GetSpecifiedShortnames() == "":
		if near := nearFlag(cmd, unknown.GetSpecifiedName()); near != "" {
			err = fmt.Errorf("%w; did you mean --%s?", err, near)
		}
	}
	return usageError{fmt.Errorf("%w; see `%s --help`", err, cmd.CommandPath())}
}

// nearFlag is the flag of a verb that begins like a word, or that the word begins like; "" where none or several do.
func nearFlag(cmd *cobra.Command, word string) string {
	var near []string
	cmd.Flags().VisitAll(func(f *pflag.Flag) {
		if strings.HasPrefix(f.Name, word) || strings.HasPrefix(word, f.Name) {
			near = append(near, f.Name)
		}
	})
	if len(near) != 1 {
		return ""
	}
	return near[0]
}

// useLine is how a verb is called: "sluice workload add NAME".
func useLine(cmd *cobra.Command) string {
	return strings.TrimSpace(strings.TrimSuffix(cmd.CommandPath(), cmd.Name()) + cmd.Use)
}

// nounOf is what `show` knows of that somebody asked another verb for: "workload list", or "workloads" alone; "": nothing.
func nounOf(cmd *cobra.Command, word string) string {
	if slices.Contains([]string{"list", "ls", "show", "status"}, word) {
		word = cmd.Name() + "s"
	}
	for _, noun := range api.Nouns {
		if cmd.Name() != "show" && noun.Name == word {
			return word
		}
	}
	return ""
}

// argsError says how a verb is called that may be given no words behind it, or others.
func argsError(cmd *cobra.Command, given []string, takesNone bool) error {
	line := useLine(cmd)
	var err error
	switch {
	case cmd.HasAvailableSubCommands():
		cmd.SuggestionsMinimumDistance = 2
		err = fmt.Errorf("unknown command %q for %q", given[0], cmd.CommandPath())
		if noun := nounOf(cmd, given[0]); noun != "" {
			err = fmt.Errorf("%w; did you mean: %s show %s?", err, cmd.Root().Name(), noun)
		} else if near := cmd.SuggestionsFor(given[0]); len(near) > 0 {
			err = fmt.Errorf("%w; did you mean %s?", err, strings.Join(near, " or "))
		}
	case len(given) == 1 && cmd.Flags().Lookup("config") != nil:
		err = fmt.Errorf("a file goes behind -c: %s -c %s", line, given[0])
	case takesNone:
		err = fmt.Errorf("%s takes no word behind it but flags, and got %q", strings.TrimPrefix(cmd.CommandPath(), cmd.Root().Name()+" "), strings.Join(given, " "))
	default:
		err = fmt.Errorf("write it as: %s", line)
	}
	return usageError{fmt.Errorf("%w; see `%s --help`", err, cmd.CommandPath())}
}

// lifetime is a duration that knows days.
type lifetime time.Duration

func (l *lifetime) String() string {
	if *l == 0 {
		return ""
	}
	return time.Duration(*l).String()
}

func (l *lifetime) Type() string { return "TIME" }

// seconds is what the API takes.
func (l *lifetime) seconds() float64 { return time.Duration(*l).Seconds() }

var errLifetime = errors.New("write a time with its unit, such as 90s, 10m, 12h or 7d")

// Set takes Go's durations, and days in front: 7d, 1d12h.
func (l *lifetime) Set(text string) error {
	var whole time.Duration
	rest := text
	if days, after, ok := strings.Cut(text, "d"); ok {
		n, err := strconv.ParseUint(days, 10, 16)
		if err != nil {
			return errLifetime
		}
		whole, rest = time.Duration(n)*24*time.Hour, after
	}
	if rest != "" {
		d, err := time.ParseDuration(rest)
		if err != nil || d < 0 {
			return errLifetime
		}
		whole += d
	}
	if whole <= 0 {
		return errLifetime
	}
	*l = lifetime(whole)
	return nil
}

// byteSize is a number of bytes with a decimal unit.
type byteSize int64

func (b *byteSize) String() string {
	if *b == 0 {
		return ""
	}
	return strconv.FormatInt(int64(*b), 10)
}

func (b *byteSize) Type() string { return "BYTES" }

func (b *byteSize) Set(text string) error {
	number, unit := text, int64(1)
	for _, u := range []struct {
		name  string
		bytes int64
	}{{"GB", 1e9}, {"MB", 1e6}, {"kB", 1e3}, {"B", 1}} {
		if rest, ok := strings.CutSuffix(text, u.name); ok {
			number, unit = rest, u.bytes
			break
		}
	}
	n, err := strconv.ParseInt(number, 10, 64)
	if err != nil || n <= 0 || n > 1<<62/unit {
		return errors.New("write a size, such as 500kB, 10MB or 2GB")
	}
	*b = byteSize(n * unit)
	return nil
}

// number is a whole number from 1 to most. Left out, it is 0.
type number[T ~int | ~uint16 | ~uint64] struct {
	to      *T
	most    uint64
	example string
}

func (n number[T]) String() string {
	if n.to == nil || *n.to == 0 { // nil: pflag asks a zero value for its text
		return ""
	}
	return strconv.FormatUint(uint64(*n.to), 10)
}

func (n number[T]) Type() string { return "N" }

func (n number[T]) Set(text string) error {
	v, err := strconv.ParseUint(text, 10, 64)
	switch {
	case err == nil && v >= 1 && v <= n.most:
	case n.most < math.MaxInt32: // beyond it the bound is none that anybody meets
		return fmt.Errorf("write a number from 1 to %d, such as %s", n.most, n.example)
	default:
		return fmt.Errorf("write a whole number, such as %s", n.example)
	}
	*n.to = T(v)
	return nil
}
