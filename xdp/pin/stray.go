package pin

import (
	"regexp"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/link"
)

var rootName = regexp.MustCompile(`^root_[0-9a-f]{8}$`) // NameOf("root", …)

// RootLink returns the link that holds a program on its hook, where the program is a root of ours by its name, of any version and whoever
// has its pins; 0: it is none. The pins are out of sight where a daemon ran in another mount namespace, or with another bpf_dir.
func RootLink(id ebpf.ProgramID) link.ID {
	p, err := ebpf.NewProgramFromID(id)
	if err != nil {
		return 0
	}
	defer p.Close()
	if info, err := p.Info(); err != nil || !rootName.MatchString(info.Name) {
		return 0
	}
	links := new(link.Iterator)
	defer links.Close()
	for links.Next() {
		if info, err := links.Link.Info(); err == nil && info.Program == id {
			return links.ID
		}
	}
	return 0
}
