package main

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"sluice/tests/bench/report"
	"sluice/tests/bench/tunnel/trial"
)

const method = `## How it was measured

A lane is client, gateway, wire, gateway and server in namespaces of their own, joined by veth pairs; the lanes of a wire are up at
once and take turns in rounds whose order is shuffled. Before that each lane shows that it does what it claims: a connection comes
about, and the wire sees TCP alone without a tunnel, UDP alone with WireGuard, ESP alone with IPsec. A ratio is the median of the ratios
of each round.

RR is a byte and a byte back, over and over. STREAM is a message of 1 MiB and a byte back, over and over, with TCP's buffers bounded to
512 KB: a stream that can be measured in turns of milliseconds (iperf3 knows whole seconds, within which a shared machine's speed changes
by half). Workloads have the MTU that the tunnel leaves, so nothing is fragmented. Segmentation offloads (TSO, GSO, GRO) are off on every
veth, so a gateway handles packets of the wire's MTU; where it says "segmentation offload" they are as the kernel has them.

**On the host** everything shares one core, and a cost is the CPU time of both ends, of the tunnels' processes and of the core's ksoftirqd. It has no idle
time in it; rates and latencies are on the clock. "Sluice, userspace WireGuard" is the tunnel that Sluice's driver makes where the kernel has
none, in a process of its own; "wireguard-go" is the reference program, built from the same module version. Neither has Sluice's policy in
its path: what that costs is in [the report of the path](path.md). On one core no part of a tunnel runs beside another one, and packets are passed
on almost one by one; "on all cores" lets the tunnel's processes, though not the load, run on every core of the machine.

**In the virtual machine** (%s, emulated by QEMU without KVM) the clock counts instructions: one is a nanosecond, and nothing else
makes time pass while the CPU has work. So a cost is a **number of instructions**, the kernel's threads included: it does not depend on the
host, and is nearly the same each time. WireGuard's links and ESP with AES-GCM are made by Sluice's drivers: xfrm interfaces, static keying, ESN, a
window of 1024. ESP is there with ChaCha20-Poly1305 as well, WireGuard's cipher, and with no cipher at all: what differs then is the way through the
kernel alone.

What can be concluded from that, and what not:

- Instructions are those that a CPU with these features executes: %s. Ciphers in use: %s. WireGuard takes its own code by the same features.
- An instruction is not a time. One round of AES is one instruction here and a few cycles on silicon; a cache miss costs nothing here. So
  figures within one lane at two MTUs, and lanes with the same cipher, compare well; **two ciphers do not**, nor is any figure a throughput.
- Hence the ciphers alone are measured on the real core, by %s, each sealing messages with a nonce of their own.
- The four CPUs of the second machine take turns in one thread, and its clock counts the instructions of all: so what the flows cost together is
  seen, and how much the CPUs would gain on each other is not. "At once" counts a CPU that waits for its turn as well: it shows that there
  is work for several, and is no speed-up. **The published throughput, where WireGuard's one stream is faster because it uses several CPUs, cannot be
  repeated here**; the published CPU time can be compared.

`

// Markdown is the whole report.
func (r *Results) Markdown(figures []report.Figure) string {
	var b strings.Builder
	fmt.Fprintf(&b, "# Tunnels: WireGuard and ESP\n\nA %s run of revision %s on %s, %d rounds on the host and %d in the virtual machine, %s in all. `make bench-tunnel` makes it again.\n\n",
		r.Size, r.Revision, r.When.Format(time.DateOnly), r.Rounds, r.Guest.Rounds, r.Took.Round(time.Second))
	b.WriteString(r.Machine.Markdown() + "\n## What a tunnel costs\n\n")
	b.WriteString("In terms of plain forwarding through the same two gateways: CPU time on the host,\n\n")
	b.WriteString(ratioTable(r.Host, Host, Embedded, WireGuardGo))
	b.WriteString("\nand instructions in the virtual machine (a number of instructions is no time: see below).\n\n")
	b.WriteString(ratioTable(r.Inside, Machine, ESPGCM, WireGuard))
	b.WriteString("\n## IPsec beside WireGuard\n\n" + r.publishedTable() + "\n" + r.comparisonTable())
	r.composedText(&b)
	b.WriteString(r.hubText())
	b.WriteString("\n" + fmt.Sprintf(method, "Linux "+r.GuestKernel, strings.Join(r.Crypto.Flags, ", "), r.drivers(), r.OpenSSL))
	for _, f := range figures {
		fmt.Fprintf(&b, "![%s](%s)\n\n", f.About, f.File)
	}
	b.WriteString("## On the host\n")
	costTables(&b, r.Host, Host, hostUnit, true)
	b.WriteString("\n## In the virtual machine\n")
	costTables(&b, r.Inside, Machine, machineUnit, false)
	b.WriteString("\n## Over four CPUs\n\n")
	b.WriteString("Streams with MTU 1500 in a machine of four CPUs. Both ends of a flow are on a CPU of its own; a wire is received on the next CPU (one wire\n" +
		"of several flows on all, by what their headers hash to: a tunnel of WireGuard or ESP has one header for all its flows).\n\n")
	b.WriteString(r.spreadTable())
	b.WriteString("\n## Ciphers on this core\n\n" + r.cipherTable())
	return b.String()
}

func (r *Results) drivers() string {
	var out []string
	for _, name := range slices.Sorted(maps.Keys(r.Crypto.Drivers)) {
		out = append(out, fmt.Sprintf("%s by `%s`", name, r.Crypto.Drivers[name]))
	}
	return strings.Join(out, ", ")
}

// ratioTable has a row for each load: all lanes in terms of plain forwarding, and one in terms of another.
func ratioTable(list []trial.Measurement, lanes []Rival, own, than string) string {
	header, label := []string{"load"}, map[string]string{}
	for _, l := range lanes {
		label[l.Key] = l.Label
		if l.Key != Plain {
			header = append(header, l.Label)
		}
	}
	header = append(header, label[own]+" / "+label[than])
	var rows [][]string
	for _, s := range shapes(list) {
		row := []string{s.String()}
		for _, l := range lanes {
			if l.Key != Plain {
				row = append(row, ratio(list, s, l.Key, Plain).String())
			}
		}
		rows = append(rows, append(row, ratio(list, s, own, than).String()))
	}
	return report.Table(header, rows)
}

// composedText says what the parts come to.
func (r *Results) composedText(b *strings.Builder) {
	var rows [][]string
	for _, w := range wires {
		c, ok := r.compose(w)
		if !ok || w.Offload {
			continue
		}
		rows = append(rows, []string{w.String(), report.Digits(c.Forwarding),
			fmt.Sprintf("%s + %s", report.Digits(c.ESPPath), report.Digits(c.ESPCipher)), report.Digits(c.ESP()),
			fmt.Sprintf("%s + %s", report.Digits(c.WireGuardPath), report.Digits(c.ChaCha)), report.Digits(c.WireGuard()), report.Digits(c.ESP() / c.WireGuard())})
	}
	if len(rows) == 0 {
		return
	}
	b.WriteString("\n\"Composed\" is an estimate of CPU µs per MB on this core, and no measurement: forwarding as measured on the host; a tunnel's own path by its\n" +
		"instructions without a cipher, taken to run as fast as those of forwarding; both ciphers as measured here, sealing and opening.\n\n")
	b.WriteString(report.Table([]string{"CPU µs per MB, composed", "forwarding", "ESP: path + AES-GCM", "in all", "WireGuard: path + ChaCha20-Poly1305", "in all", "ESP / WireGuard"}, rows))
}

// costTables are all that was measured of lanes. The machine's rates would be those of instructions, so it has none.
func costTables(b *strings.Builder, list []trial.Measurement, lanes []Rival, unit string, rates bool) {
	for _, s := range shapes(list) {
		header := []string{"lane", unit + per(s.Kind), "/ plain forwarding"}
		if rates && s.Kind == trial.RR {
			header = append(header, "k/s", "p50, µs", "p99, µs")
		} else if rates {
			header = append(header, "Gbit/s")
		}
		var rows [][]string
		for _, l := range lanes {
			m := find(list, s, l.Key)
			row := []string{l.Label, report.Of(m.Cost).String(), ratio(list, s, l.Key, Plain).String()}
			if rates {
				row = append(row, report.Of(m.Rate).String())
			}
			if rates && s.Kind == trial.RR {
				row = append(row, report.Of(m.P50).String(), report.Of(m.P99).String())
			}
			rows = append(rows, append(row, report.Thousands(fmt.Sprint(m.Retransmitted))))
		}
		fmt.Fprintf(b, "\n### %s\n\n%s", s, report.Table(append(header, "segments sent again"), rows))
	}
}

func (r *Results) spreadTable() string {
	var rows [][]string
	for _, l := range r.Guest.Layouts {
		plain := total(r.spread(l, Plain))
		for _, lane := range Machine {
			s := r.spread(l, lane.Key)
			if len(s.MB) == 0 {
				continue
			}
			rows = append(rows, []string{l.String() + ": " + lane.Label, report.Of(total(s)).String(), report.RatioOfMedians(total(s), plain).String(), report.Of(atOnce(s)).String()})
		}
	}
	return report.Table([]string{"lane", machineUnit + " per MB, all CPUs", "/ plain forwarding", "CPUs with something to do at once"}, rows)
}

func (r *Results) cipherTable() string {
	var rows [][]string
	for _, c := range r.Ciphers {
		if c.Name != aesGCM {
			continue
		}
		other := r.cipher(chaCha, c.Size)
		rows = append(rows, []string{report.Thousands(fmt.Sprint(c.Size)), report.Of(c.Micros).String(), report.Of(other.Micros).String(), report.Ratio(c.Micros, other.Micros).String()})
	}
	return report.Table([]string{"bytes of a message", "AES-GCM-256, CPU µs per MB", "ChaCha20-Poly1305, CPU µs per MB", "AES-GCM / ChaCha20-Poly1305"}, rows)
}
