package config

import (
	"regexp"
	"strings"
	"time"

	"go.yaml.in/yaml/v3"
)

// maxAmount is far beyond the queues and descriptors of any NIC.
const maxAmount = 1 << 20

// amount is a number, or max.
type amount struct {
	n   int
	max bool
}

func (a *amount) takes() takes { return text | integer }
func (a *amount) describe() schema {
	return schema{"description": "a whole number, or max", "pattern": `^(max|[1-9][0-9]*)$`, "minimum": 1, "maximum": maxAmount}
}
func (a *amount) parse(s string) problem {
	if s == "max" {
		a.max = true
		return problem{}
	}
	if !digits(s) {
		return bad("%q is neither a number nor max", s).or("write how many, or max for as many as the NIC has")
	}
	n, wrong := decimal(s, 1, maxAmount)
	a.n = int(n)
	return wrong
}

// delay is a time in which a NIC gathers packets: NICs count in microseconds.
type delay time.Duration

const delayPattern = `^[0-9]+(us|ms)$`

var delayRegexp = regexp.MustCompile(delayPattern)

func (d *delay) takes() takes     { return text }
func (d *delay) describe() schema { return schema{"pattern": delayPattern} }
func (d *delay) parse(s string) problem {
	if s != "" && digits(s) {
		return bad("%s has no unit", s).or("write %sus", s)
	}
	v, err := time.ParseDuration(s)
	const most = 100 * time.Millisecond
	switch {
	case err != nil || !delayRegexp.MatchString(s):
		return bad("%q is not a number of microseconds", s).or("write it as 50us")
	case v > most:
		return bad("%s is outside 0us-100ms", s)
	}
	*d = delay(v)
	return problem{}
}

const maxCPU = 8191 // of any kernel's CONFIG_NR_CPUS

// cpus is a CPU, or a range of them.
type cpus struct{ Range }

func (c *cpus) takes() takes { return text | integer }
func (c *cpus) describe() schema {
	return schema{"pattern": "^[0-9]{1,4}-[0-9]{1,4}$", "minimum": 0, "maximum": maxCPU}
}
func (c *cpus) parse(s string) problem {
	first, last, span := strings.Cut(s, "-")
	if !span {
		last = first
	}
	low, wrong := decimal(first, 0, maxCPU)
	high, wrongLast := decimal(last, 0, maxCPU)
	switch {
	case !wrong.none() || !wrongLast.none():
		return bad("%q is not a CPU", s).or("write its number, or a range such as 0-3")
	case low > high:
		return bad("%s is upside down", s).or("write %d-%d", high, low)
	}
	c.Range = Range{First: uint16(low), Last: uint16(high)}
	return problem{}
}

// onlyAuto is the word beside a list of CPUs.
type onlyAuto string

func (onlyAuto) words() words {
	return words{now: []string{"auto"}, mean: map[string]string{"all": "auto", "spread": "auto", "balanced": "auto", "numa": "auto"}}
}

// irqAffinity is auto, or a list of CPUs.
type irqAffinity struct {
	at
	auto pick[onlyAuto]
	cpus list[val[cpus]]
}

func (i *irqAffinity) read(r *reader, n *yaml.Node, a at) {
	if n.Kind == yaml.SequenceNode {
		r.into(&i.cpus, n, a)
		return
	}
	if n.Kind == yaml.ScalarNode && strings.Trim(n.Value, "0123456789-,") == "" && n.Value != "" {
		r.add(a, bad("expected auto or a list").or("put it in [brackets]"))
		return
	}
	r.into(&i.auto, n, a)
}

func (i *irqAffinity) schema(s *schemas) schema {
	return schema{"oneOf": []any{s.of(&i.auto), s.of(&i.cpus)}}
}

// governor is a word of the kernel's cpufreq.
type governor string

func (governor) words() words {
	return words{
		now:  []string{"performance", "powersave", "schedutil", "ondemand", "conservative"},
		mean: map[string]string{"max": "performance", "high": "performance", "network-throughput": "performance", "network-latency": "performance", "balanced": "schedutil", "auto": "schedutil", "default": "schedutil"},
	}
}
