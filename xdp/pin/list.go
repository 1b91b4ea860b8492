package pin

import (
	"context"
	"fmt"
	"io"
	"io/fs"
	"path/filepath"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/link"
	bpfpin "github.com/cilium/ebpf/pin"
)

// List writes a line for every pin below a directory: its path, and what it is. It opens them to look, and changes nothing. What
// cannot be looked at says why in its line.
func List(ctx context.Context, w io.Writer, dir string) error {
	return filepath.WalkDir(dir, func(path string, e fs.DirEntry, err error) error {
		switch {
		case err != nil:
			return err
		case ctx.Err() != nil:
			return ctx.Err()
		case e.IsDir():
			return nil
		}
		name, err := filepath.Rel(dir, path)
		if err != nil {
			return err
		}
		_, err = fmt.Fprintf(w, "%-70s %s\n", name, describe(path))
		return err
	})
}

func describe(path string) string {
	p, err := bpfpin.Load(path, &ebpf.LoadPinOptions{ReadOnly: true})
	if err != nil {
		p, err = bpfpin.Load(path, nil) // programs and links know no read-only way
	}
	if err != nil {
		return "cannot be opened: " + err.Error()
	}
	defer p.Close()
	switch o := p.(type) {
	case *ebpf.Map:
		info, err := o.Info()
		if err != nil {
			return "map: " + err.Error()
		}
		id, _ := info.ID()
		return fmt.Sprintf("map %d %s %s key %d value %d max %d flags %#x", id, info.Type, info.Name, info.KeySize, info.ValueSize, info.MaxEntries, info.Flags)
	case *ebpf.Program:
		info, err := o.Info()
		if err != nil {
			return "program: " + err.Error()
		}
		id, _ := info.ID()
		return fmt.Sprintf("program %d %s %s tag %s", id, info.Type, info.Name, info.Tag)
	case link.Link:
		info, err := o.Info()
		if err != nil {
			return "link: " + err.Error()
		}
		return fmt.Sprintf("link %d of type %d, program %d", info.ID, info.Type, info.Program)
	}
	return fmt.Sprintf("%T", p)
}
