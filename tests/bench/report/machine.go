package report

import (
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"

	"golang.org/x/sys/unix"
)

// Machine describes where a benchmark ran, without saying which machine it was.
type Machine struct {
	Kernel      string
	CPU         string
	Cores       int
	MemoryGB    int
	Virtual     bool
	JIT         string
	Mitigations []string // "spectre_v2: Mitigation: …"; what the CPU is not affected by is left out
	Go          string
	Load        string // load averages when the run began
}

// Describe looks at this machine.
func Describe() Machine {
	m := Machine{Cores: runtime.NumCPU(), Go: runtime.Version(), CPU: "unknown"}
	var name unix.Utsname
	if unix.Uname(&name) == nil {
		m.Kernel = unix.ByteSliceToString(name.Release[:]) + " " + unix.ByteSliceToString(name.Machine[:])
	}
	for line := range strings.Lines(read("/proc/cpuinfo")) {
		key, value, _ := strings.Cut(line, ":")
		switch strings.TrimSpace(key) {
		case "model name":
			m.CPU = strings.TrimSpace(value)
		case "flags":
			m.Virtual = slices.Contains(strings.Fields(value), "hypervisor")
		}
	}
	var info unix.Sysinfo_t
	if unix.Sysinfo(&info) == nil {
		m.MemoryGB = int((uint64(info.Totalram)*uint64(info.Unit) + 1<<29) >> 30)
	}
	m.JIT = map[string]string{"0": "off", "1": "on", "2": "on, debug"}[strings.TrimSpace(read("/proc/sys/net/core/bpf_jit_enable"))]
	if h := strings.TrimSpace(read("/proc/sys/net/core/bpf_jit_harden")); h != "0" {
		m.JIT += ", hardened (" + h + ")"
	}
	files, _ := filepath.Glob("/sys/devices/system/cpu/vulnerabilities/*")
	for _, f := range files {
		if state := strings.TrimSpace(read(f)); state != "Not affected" {
			m.Mitigations = append(m.Mitigations, filepath.Base(f)+": "+state)
		}
	}
	if words := strings.Fields(read("/proc/loadavg")); len(words) > 2 {
		m.Load = strings.Join(words[:3], " ")
	}
	return m
}

func read(path string) string {
	data, err := os.ReadFile(path)
	if err != nil {
		return ""
	}
	return string(data)
}

// Markdown is a list of what is known.
func (m Machine) Markdown() string {
	kind := "physical"
	if m.Virtual {
		kind = "virtual"
	}
	var b strings.Builder
	fmt.Fprintf(&b, "- Kernel %s, BPF JIT %s\n- %s, %d cores, %d GB, a %s machine\n", m.Kernel, m.JIT, m.CPU, m.Cores, m.MemoryGB, kind)
	fmt.Fprintf(&b, "- Load averages at the start: %s; %s\n", m.Load, m.Go)
	if len(m.Mitigations) == 0 {
		b.WriteString("- No mitigations of CPU vulnerabilities\n")
	}
	for _, text := range m.Mitigations {
		fmt.Fprintf(&b, "- %s\n", text)
	}
	return b.String()
}

// Table is a Markdown table; the first column is text, the others stand to the right.
func Table(header []string, rows [][]string) string {
	var b strings.Builder
	fmt.Fprintf(&b, "| %s |\n|%s\n", strings.Join(header, " | "), " --- |"+strings.Repeat(" ---: |", len(header)-1))
	for _, r := range rows {
		fmt.Fprintf(&b, "| %s |\n", strings.Join(r, " | "))
	}
	return b.String()
}
