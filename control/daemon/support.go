package daemon

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"time"

	"go.yaml.in/yaml/v3"
	"golang.org/x/sys/unix"

	"sluice/control/config"
	"sluice/control/support"
	"sluice/crypto/ipsec"
	"sluice/plural"
	"sluice/xdp/pin"
)

// SupportOptions say where this instance lives.
type SupportOptions struct {
	Version  string
	StateDir string
	Doctor   DoctorOptions // with File and what asks the daemon
	Shown    []support.Entry
	Now      time.Time
}

// supportTime bounds a whole bundle.
const supportTime = 90 * time.Second

// Support packs what a ticket needs, as support.Write does. It needs no daemon: what only that could tell is then missing, and the
// bundle says so.
func Support(ctx context.Context, out io.Writer, o SupportOptions) (failed []string, err error) {
	cfg, _, _ := o.Doctor.config(ctx)
	entries := append([]support.Entry{
		{Name: "version.txt", Write: func(_ context.Context, w io.Writer) error { return aboutMachine(w, o) }},
		{Name: "config.yaml", Write: o.writeConfig},
	}, o.Shown...)
	entries = append(entries,
		support.Entry{Name: "doctor.txt", Write: func(ctx context.Context, w io.Writer) error { return writeFindings(ctx, w, o.Doctor) }},
		support.Entry{Name: "pins.txt", Write: func(ctx context.Context, w io.Writer) error { return pin.List(ctx, w, o.Doctor.BPFDir) }},
		support.Entry{Name: "xfrm.txt", Write: writeXFRM},
		support.Entry{Name: "kernel-log.txt", Write: func(_ context.Context, w io.Writer) error { return writeKernelLog(w, linksOf(cfg)) }},
	)
	entries = append(entries, commands()...)
	return support.Write(ctx, out, support.Options{
		Dir: "sluice-support", Secrets: o.secretFiles(cfg), Public: publicKeys(cfg), Now: o.Now, Total: supportTime,
	}, entries)
}

func aboutMachine(w io.Writer, o SupportOptions) error {
	var u unix.Utsname
	var s unix.Sysinfo_t
	err := errors.Join(unix.Uname(&u), unix.Sysinfo(&s))
	_, failed := fmt.Fprintf(w, "sluice %s, %s\nkernel %s %s %s\n%d CPUs, %d MB of memory, up %s\nnow %s\nstate_dir %s\nbpf_dir %s\n",
		o.Version, runtime.Version(), unix.ByteSliceToString(u.Release[:]), unix.ByteSliceToString(u.Version[:]), unix.ByteSliceToString(u.Machine[:]),
		runtime.NumCPU(), uint64(s.Totalram)*uint64(s.Unit)>>20, time.Duration(s.Uptime)*time.Second, o.Now.UTC().Format(time.RFC3339), o.StateDir, o.Doctor.BPFDir)
	return errors.Join(err, failed)
}

// writeConfig tells the configuration that runs, else that of the file. A file that is not understood may hold anything, and is left
// out; one that is has no place for a secret but its comments, which are left out, too.
func (o SupportOptions) writeConfig(ctx context.Context, w io.Writer) error {
	if o.Doctor.Config != nil && !o.Doctor.FileFirst {
		if stored, err := o.Doctor.Config(ctx); err == nil {
			fmt.Fprintf(w, "# revision %d, without its comments\n", stored.Meta.Number)
			if _, err := parseStored(stored); err != nil {
				return errors.New("the live revision is not understood by this version")
			}
			return withoutComments(w, stored.Bytes)
		}
	}
	src, err := config.LoadFile(o.Doctor.File)
	if err != nil {
		return err
	}
	if _, err := config.Parse(src); err != nil {
		return fmt.Errorf("%s has errors, so it is left out; sluice check -c %[1]s names them", o.Doctor.File)
	}
	fmt.Fprintf(w, "# %s, without its comments; no daemon says what runs\n", o.Doctor.File)
	return withoutComments(w, src.Bytes)
}

func withoutComments(w io.Writer, text []byte) error {
	var document yaml.Node
	if err := yaml.Unmarshal(text, &document); err != nil {
		return errors.New("it cannot be read again")
	}
	var strip func(n *yaml.Node)
	strip = func(n *yaml.Node) {
		n.HeadComment, n.LineComment, n.FootComment = "", "", ""
		for _, c := range n.Content {
			strip(c)
		}
	}
	strip(&document)
	e := yaml.NewEncoder(w)
	e.SetIndent(2)
	return errors.Join(e.Encode(&document), e.Close())
}

func writeFindings(ctx context.Context, w io.Writer, o DoctorOptions) error {
	for _, f := range Doctor(ctx, o) {
		if _, err := fmt.Fprintf(w, "%-8s %-18s %s\n", f.Status, f.Name, f.Detail); err != nil {
			return err
		}
		for _, more := range []string{f.Cost, f.Fix} {
			if more != "" {
				fmt.Fprintf(w, "%-8s %-18s %s\n", "", "", more)
			}
		}
	}
	return ctx.Err()
}

// writeXFRM is what `ip xfrm state` would show but for the keys.
func writeXFRM(_ context.Context, w io.Writer) error {
	counters, err := xfrmCounters()
	for _, c := range counters {
		if c.Packets > 0 {
			fmt.Fprintf(w, "%d %s %s\n", c.Packets, c.Name, c.Text)
		}
	}
	lines, failed := ipsec.Listing()
	fmt.Fprintf(w, "%s of Sluice's\n%s\n", plural.Of(len(lines), "state or policy", "states and policies"), strings.Join(lines, "\n"))
	return errors.Join(err, failed)
}

func linksOf(cfg *config.Config) (out []string) {
	if cfg == nil {
		return nil
	}
	for _, i := range namedInterfaces(cfg) {
		out = append(out, i.Name)
	}
	return out
}

// ourWords are in the kernel's lines about what Sluice drives.
var ourWords = []string{"sluice", "xdp", "bpf", "wireguard", "xfrm", "ipsec", "esp", "tun:", "link is", "oom"}

// writeKernelLog tells the kernel's lines that name one of our interfaces or what they are made of.
func writeKernelLog(w io.Writer, links []string) error {
	size, err := unix.Klogctl(unix.SYSLOG_ACTION_SIZE_BUFFER, nil)
	if err != nil {
		return fmt.Errorf("the kernel's log: %w", err)
	}
	buf := make([]byte, min(size, 16<<20))
	n, err := unix.Klogctl(unix.SYSLOG_ACTION_READ_ALL, buf)
	if err != nil {
		return fmt.Errorf("the kernel's log: %w", err)
	}
	for line := range bytes.Lines(buf[:n]) {
		if isOurs(string(line), links) {
			if _, err := w.Write(line); err != nil {
				return err
			}
		}
	}
	return nil
}

func isOurs(line string, links []string) bool {
	low := strings.ToLower(line)
	words := strings.FieldsFunc(low, func(r rune) bool { return strings.ContainsRune(" \t\n:,()[]<>", r) })
	for _, w := range ourWords {
		for _, word := range words {
			if word == w {
				return true
			}
		}
	}
	if strings.Contains(low, "sluice") || strings.Contains(low, "oom-kill") || strings.Contains(low, "link is ") {
		return true
	}
	for _, l := range links {
		for _, word := range words {
			if word == strings.ToLower(l) {
				return true
			}
		}
	}
	return false
}

// commands are the machine's own words for its network; none of these programs tells a key. `ip xfrm state` and `wg showconf` would.
func commands() []support.Entry {
	var out []support.Entry
	for _, c := range []struct{ name, line string }{
		{"ip-link", "ip -d -s link"}, {"ip-address", "ip address"}, {"ip-rule-4", "ip -4 rule"}, {"ip-rule-6", "ip -6 rule"},
		{"ip-route-4", "ip -d -4 route show table all"}, {"ip-route-6", "ip -d -6 route show table all"}, {"ip-neighbor", "ip neighbor"},
		{"tc-qdisc", "tc -s qdisc"}, {"tc-class", "tc -s class show"}, {"sockets", "ss -ulnp"},
		{"journal", "journalctl -u sluice -n 3000 --no-pager -o short-iso-precise"},
	} {
		f := strings.Fields(c.line)
		out = append(out, support.Entry{Name: "machine/" + c.name + ".txt", Write: func(ctx context.Context, w io.Writer) error {
			cmd := exec.CommandContext(ctx, f[0], f[1:]...)
			cmd.Env = []string{"PATH=" + os.Getenv("PATH"), "LC_ALL=C", "SYSTEMD_PAGER="}
			var said bytes.Buffer
			cmd.Stdout, cmd.Stderr, cmd.WaitDelay = w, &said, time.Second
			if err := cmd.Run(); err != nil {
				return fmt.Errorf("%s: %w %s", c.line, err, firstLine(said.String()))
			}
			return nil
		}})
	}
	return out
}

// firstLine is what a program said first, whole or not at all: half a key would not be known for one.
func firstLine(said string) string {
	line, _, _ := strings.Cut(strings.TrimSpace(said), "\n")
	if len(line) > 200 {
		return "(and a long line)"
	}
	return line
}
