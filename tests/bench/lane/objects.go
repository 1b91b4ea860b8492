package lane

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"structs"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/link"
)

// Root is the folder of this module: C sources are found from it, wherever a program or a test was started.
func Root() (string, error) {
	dir, err := os.Getwd()
	if err != nil {
		return "", err
	}
	for at := dir; ; at = filepath.Dir(at) {
		if _, err := os.Stat(filepath.Join(at, "go.mod")); err == nil {
			return at, nil
		}
		if at == filepath.Dir(at) {
			return "", fmt.Errorf("%s is in no Go module: run this from the source tree", dir)
		}
	}
}

// Compile compiles a C source, named from Root, as `make generate` compiles those of the data path. Programs that only
// benchmarks use are not kept as objects.
func Compile(ctx context.Context, source string) (*ebpf.CollectionSpec, error) {
	root, err := Root()
	if err != nil {
		return nil, err
	}
	cmd := exec.CommandContext(ctx, "clang-19", "-target", "bpfel", "-mcpu=v3", "-g", "-O2", "-Wall", "-Werror", "-I", "xdp/include",
		"-idirafter", "/usr/include/x86_64-linux-gnu", "-idirafter", "/usr/include/aarch64-linux-gnu", "-c", source, "-o", "-")
	cmd.Dir = root
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	if err := cmd.Run(); err != nil {
		return nil, fmt.Errorf("compile %s: %w\n%s", source, err, stderr.Bytes())
	}
	return ebpf.LoadCollectionSpecFromReader(bytes.NewReader(stdout.Bytes()))
}

// Objects are the compiled programs of this package.
type Objects struct {
	spec *ebpf.CollectionSpec
	sink *ebpf.Collection
}

// NewObjects compiles them.
func NewObjects(ctx context.Context) (*Objects, error) {
	spec, err := Compile(ctx, "tests/bench/lane/bpf/frames.c")
	if err != nil {
		return nil, err
	}
	o := &Objects{spec: spec}
	if o.sink, err = o.load("sink", nil, nil); err != nil {
		return nil, err
	}
	return o, nil
}

// Close closes descriptors.
func (o *Objects) Close() { o.sink.Close() }

func (o *Objects) attachSink(ifindex int) (link.Link, error) {
	return link.AttachTCX(link.TCXOptions{Interface: ifindex, Program: o.sink.Programs["sink"], Attach: ebpf.AttachTCXIngress})
}

// load loads one program of the object with its constants.
func (o *Objects) load(program string, flows *Flows, constants map[string]any) (*ebpf.Collection, error) {
	spec := o.spec.Copy()
	for name := range spec.Programs {
		if name != program {
			delete(spec.Programs, name)
		}
	}
	for name, value := range constants {
		if err := spec.Variables[name].Set(value); err != nil {
			return nil, fmt.Errorf("%s: %w", name, err)
		}
	}
	var replace map[string]*ebpf.Map
	if flows != nil {
		if err := spec.Variables["mask"].Set(uint32(flows.n - 1)); err != nil {
			return nil, err
		}
		spec.Maps["flows"].MaxEntries = uint32(flows.n)
		replace = map[string]*ebpf.Map{"flows": flows.table}
	}
	c, err := ebpf.NewCollectionWithOptions(spec, ebpf.CollectionOptions{MapReplacements: replace})
	if err != nil {
		return nil, fmt.Errorf("load %s: %w", program, err)
	}
	return c, nil
}

// ethernet is struct ethhdr.
type ethernet struct {
	_        structs.HostLayout
	Dst, Src [6]byte
	Type     [2]byte
}
