package compile

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"sluice/control/config"
)

// Added is a workload that was made through the API: a runtime object, in no file and no revision.
type Added struct {
	config.Workload       // its name alone where Err says why there is no more
	Err             error // what is wrong with it beside the file of now; config.Errors
}

// Refused is a workload that the machine does not hold, though somebody wants it.
type Refused struct {
	Workload  string `json:"workload"`
	Interface string `json:"interface"`
	Why       string `json:"why"`
	Fix       string `json:"fix,omitempty"`
}

// String is one line.
func (r Refused) String() string {
	text := "workload " + r.Workload + ": " + r.Why
	if r.Fix != "" {
		text += "; " + r.Fix
	}
	return text
}

// merge puts the added workloads behind those of the file. One that clashes with a file that somebody is about to apply is
// an error of that file; beside one that was accepted before, the file wins.
func (c *compiler) merge(file *config.Config, added []Added) {
	merged := *file
	c.cfg, c.ofFile = &merged, len(file.Workloads)
	merged.Workloads = slices.Clip(file.Workloads)
	for _, a := range added {
		if a.Err != nil {
			c.refuseAdded(a)
			continue
		}
		clashes := file.Clashes(a.Workload)
		if len(clashes) == 0 {
			merged.Workloads = append(merged.Workloads, a.Workload)
			continue
		}
		for _, clash := range clashes {
			if !c.accepted {
				c.fail(clash.Pos, "", fmt.Sprintf("%s belongs to workload %s, which was added by the API", clash.Message, a.Name),
					"take another, or remove that one first: sluice workload del "+a.Name)
			}
		}
		c.refused = append(c.refused, Refused{a.Name, a.Interface, clashes[0].Message + " belongs to " + clashes[0].With,
			"`sluice workload del " + a.Name + "`, or apply a file without it"})
	}
}

// refuseAdded is about an added workload whose policy does not fit the file any more.
func (c *compiler) refuseAdded(a Added) {
	c.refused = append(c.refused, Refused{a.Name, a.Interface, a.Err.Error(), "add it again with a policy that fits the file"})
	if c.accepted {
		return
	}
	hint := "add it again with a policy that fits, or remove it: sluice workload del " + a.Name
	var list config.Errors
	if !errors.As(a.Err, &list) {
		list = config.Errors{{Msg: a.Err.Error()}}
	}
	for _, e := range list {
		c.fail(e.Pos, e.Path, fmt.Sprintf("beside this file, workload %s, which was added by the API: %s", a.Name, e.Msg), hint)
	}
}

// withoutBlamed gives the added workloads that errors of an accepted file are about these errors, so that the next compilation
// refuses them and goes on with the rest. blamed: there was one.
func (c *compiler) withoutBlamed(added []Added) (rest []Added, blamed bool) {
	if !c.accepted {
		return nil, false
	}
	rest = slices.Clone(added)
	for n := c.ofFile; n < len(c.cfg.Workloads); n++ {
		var errs config.Errors
		for _, e := range c.errs {
			if path := e.Path + "."; strings.HasPrefix(path, c.workloadPath(n)+".") || strings.HasPrefix(path, fmt.Sprintf("workloads[%d].", n)) {
				errs = append(errs, e)
			}
		}
		if len(errs) == 0 {
			continue
		}
		i := slices.IndexFunc(rest, func(a Added) bool { return a.Name == c.cfg.Workloads[n].Name })
		rest[i].Err, blamed = errs, true
	}
	return rest, blamed
}

// refuse leaves a workload out whose interface is of no use. It is an error of a file that somebody is about to apply, and
// the workload's own affair where the file was accepted before or the API added it: the others go on.
func (c *compiler) refuse(n int, why, fix string) {
	w := c.cfg.Workloads[n]
	if !c.accepted && !w.Added {
		c.fail(w.Pos, c.workloadPath(n)+".interface", why, fix)
		return
	}
	c.refused = append(c.refused, Refused{w.Name, w.Interface, why, fix})
}

// workloadPath is where a workload stands, for errors.
func (c *compiler) workloadPath(n int) string {
	if n >= c.ofFile {
		return "workload " + c.cfg.Workloads[n].Name
	}
	return fmt.Sprintf("workloads[%d]", n)
}
