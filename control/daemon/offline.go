package daemon

import (
	"context"
	"slices"

	"sluice/control/api"
	"sluice/control/compile"
	"sluice/control/config"
	"sluice/control/host"
	"sluice/xdp/classify"
)

// Report is what `sluice check` tells of a good file.
type Report struct {
	File     string       `json:"file"`
	Objects  []ObjectCost `json:"objects"`
	Warnings []string     `json:"warnings"`
}

// ObjectCost is what the policies of one program cost.
type ObjectCost struct {
	Name        string `json:"name"` // xdp, tc
	Entries     int    `json:"entries"`
	Classes     int    `json:"classes"`
	Prefixes    int    `json:"prefixes"`
	Bytes       int64  `json:"bytes"`
	WorstProbes int    `json:"worst_probes"`
}

// Schema is the JSON Schema of the file.
func Schema() []byte { return config.Schema() }

// Load reads a file and its set files, checks them, and makes the candidate that plan and apply send. An error is of
// type config.Errors where the file is bad.
func Load(file string) (api.Candidate, error) {
	src, err := config.LoadFile(file)
	if err != nil {
		return api.Candidate{}, err
	}
	cfg, err := config.Parse(src)
	if err != nil {
		return api.Candidate{}, err
	}
	c := api.Candidate{Name: src.Name, Bytes: src.Bytes, Files: []api.File{}}
	for _, f := range cfg.Files {
		c.Files = append(c.Files, api.File(f))
	}
	return c, nil
}

// Check parses and compiles a file as if every interface that it names were there and every key made: it may be meant
// for another machine.
func Check(_ context.Context, file string) (Report, error) {
	src, err := config.LoadFile(file)
	if err != nil {
		return Report{}, err
	}
	cfg, err := config.Parse(src)
	if err != nil {
		return Report{}, err
	}
	desired, err := compile.Compile(cfg, compile.Runtime{}, pretend(cfg))
	if err != nil {
		return Report{}, err
	}
	r := Report{File: file, Warnings: append([]string{}, desired.Warnings...)}
	for _, object := range []struct {
		name   string
		tables *classify.Tables
	}{{"xdp", desired.XDP.Generation.Tables}, {"tc", desired.TC.Generation.Tables}} {
		c := object.tables.Cost()
		r.Objects = append(r.Objects, ObjectCost{object.name, c.Entries, c.Classes, c.Prefixes, c.Bytes, c.WorstProbes})
	}
	for _, f := range classify.Lint(append(desired.XDP.Generation.Policies(), desired.TC.Generation.Policies()...)) {
		if text := f.String(); !slices.Contains(r.Warnings, text) { // both objects hold management: and the like
			r.Warnings = append(r.Warnings, text)
		}
	}
	return r, nil
}

// pretend makes facts out of the file alone.
func pretend(cfg *config.Config) compile.Facts {
	var f compile.Facts
	add := func(name string) {
		f.Host.Links = append(f.Host.Links, host.LinkFact{Name: name, Index: len(f.Host.Links) + 1, MTU: 1500, Up: true, Carrier: true})
	}
	for _, i := range cfg.Interfaces {
		add(i.Name)
	}
	for _, w := range cfg.Workloads {
		add(w.Interface)
	}
	return f
}
