package main

import (
	"slices"
	"time"

	"sluice/tests/bench/report"
	"sluice/tests/bench/tunnel/trial"
)

// Results are everything that a run found out: enough to draw its report again.
type Results struct {
	When     time.Time
	Size     string // full or quick
	Revision string // of the source
	Took     time.Duration
	Machine  report.Machine // the host

	Rounds int                 // on the host
	Host   []trial.Measurement // CPU µs

	Hubs []Hub
	Idle []Idle

	OpenSSL string
	Ciphers []Cipher

	Guest       trial.Options
	GuestKernel string
	Inside      []trial.Measurement // of the virtual machine: thousands of instructions
	Spreads     []trial.Spread
	Crypto      trial.Crypto
}

// find returns the measurement of one lane; its values are empty where there is none.
func find(list []trial.Measurement, s trial.Shape, key string) trial.Measurement {
	i := slices.IndexFunc(list, func(m trial.Measurement) bool { return m.Shape == s && m.Lane == key })
	if i < 0 {
		return trial.Measurement{Lane: key, Shape: s}
	}
	return list[i]
}

// shapes are those that were measured, in the order of the report.
func shapes(list []trial.Measurement) (out []trial.Shape) {
	for _, s := range trial.Shapes(wires) {
		if slices.ContainsFunc(list, func(m trial.Measurement) bool { return m.Shape == s }) {
			out = append(out, s)
		}
	}
	return out
}

// ratio is what a lane costs in terms of another one of the same rounds.
func ratio(list []trial.Measurement, s trial.Shape, key, than string) report.Estimate {
	return report.Ratio(find(list, s, key).Cost, find(list, s, than).Cost)
}

// spread returns how a lane's work lies; it has no rounds where that was not measured.
func (r *Results) spread(l trial.Layout, key string) trial.Spread {
	i := slices.IndexFunc(r.Spreads, func(s trial.Spread) bool { return s.Lane == key && s.Tunnels == l.Tunnels && s.Flows == l.Flows })
	if i < 0 {
		return trial.Spread{Lane: key, Tunnels: l.Tunnels, Flows: l.Flows}
	}
	return r.Spreads[i]
}

// total is thousands of instructions per MB, by round, of all CPUs together.
func total(s trial.Spread) (out []float64) {
	for i, wall := range s.Wall {
		out = append(out, 1e3*wall/s.MB[i])
	}
	return out
}

// atOnce is how many CPUs had something to do on the average, by round.
func atOnce(s trial.Spread) (out []float64) {
	for i, busy := range s.Busy {
		sum := 0.0
		for _, ms := range busy {
			sum += ms
		}
		out = append(out, sum/s.Wall[i])
	}
	return out
}

// cipher is what a size of messages costs on this machine; it has no rounds where that was not measured.
func (r *Results) cipher(name string, size int) Cipher {
	i := slices.IndexFunc(r.Ciphers, func(c Cipher) bool { return c.Name == name && c.Size == size })
	if i < 0 {
		return Cipher{Name: name, Size: size}
	}
	return r.Ciphers[i]
}

// cipherSize is the measured size that comes next to the packets of a wire.
func (r *Results) cipherSize(w trial.Wire) (size int) {
	for _, c := range r.Ciphers {
		if c.Size <= w.MTU {
			size = max(size, c.Size)
		}
	}
	return size
}

// Composed is an estimate of what a megabyte costs two gateways of this machine's core, CPU µs: what was measured here is put
// together with the proportions inside the virtual machine.
type Composed struct {
	Wire                  trial.Wire
	Forwarding            float64 // measured: both workloads and both gateways, without a tunnel
	ESPPath, ESPCipher    float64 // more than that: the tunnel's own way through the kernel, and the cipher, there and back
	WireGuardPath, ChaCha float64
}

// ESP and WireGuard are the sums.
func (c Composed) ESP() float64       { return c.Forwarding + c.ESPPath + c.ESPCipher }
func (c Composed) WireGuard() float64 { return c.Forwarding + c.WireGuardPath + c.ChaCha }

// compose estimates a wire. A thousand instructions of a tunnel's path are taken to last as long here as a thousand of plain
// forwarding do. What ChaCha20-Poly1305 takes of the path of WireGuard is taken to be what it takes of ESP's.
func (r *Results) compose(w trial.Wire) (Composed, bool) {
	s := trial.Shape{Kind: trial.Stream, Wire: w}
	here := report.Of(find(r.Host, s, Plain).Cost)
	inside := map[string]float64{}
	for _, rival := range Machine {
		inside[rival.Key] = report.Of(find(r.Inside, s, rival.Key).Cost).Median
	}
	size := r.cipherSize(w)
	aes, chacha := report.Of(r.cipher(aesGCM, size).Micros), report.Of(r.cipher(chaCha, size).Micros)
	scale := here.Median / inside[Plain]
	c := Composed{
		Wire: w, Forwarding: here.Median,
		ESPPath: scale * (inside[ESPNull] - inside[Plain]), ESPCipher: 2 * aes.Median,
		WireGuardPath: scale * (inside[WireGuard] - inside[Plain] - (inside[ESPChaCha] - inside[ESPNull])), ChaCha: 2 * chacha.Median,
	}
	return c, c.ESP() > 0 && c.WireGuard() > 0 // and a number at all
}
