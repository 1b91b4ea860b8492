package process

import (
	"os"
	"os/exec"
	"testing"
)

func TestAProcessIsKnownByItsCommandAndItsNetwork(t *testing.T) {
	const path = "/run/sluice/tunnel-fra1.sock"
	cmd := exec.Command("sh", "-c", "echo; read line", "tunneld", "fra1", path)
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err == nil {
		err = cmd.Start()
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { in.Close(); cmd.Wait() })
	if _, err := out.Read(make([]byte, 1)); err != nil { // Start returns a moment before the kernel knows the arguments
		t.Fatal(err)
	}
	here, err := NetNS(os.Getpid())
	if err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct {
		pid        int
		name, path string
		netns      uint64
		want       bool
	}{
		"that process":     {cmd.Process.Pid, "fra1", path, here, true},
		"another tunnel":   {cmd.Process.Pid, "fra2", path, here, false},
		"another socket":   {cmd.Process.Pid, "fra1", path + "2", here, false},
		"another network":  {cmd.Process.Pid, "fra1", path, here + 1, false},
		"another program":  {os.Getpid(), "fra1", path, here, false},
		"nobody's process": {1 << 30, "fra1", path, here, false},
	} {
		t.Run(name, func(t *testing.T) {
			if got := (Place{Kind: Kind{Verb: "tunneld"}, NetNS: c.netns}).runs(c.pid, c.name, c.path); got != c.want {
				t.Errorf("runs = %v", got)
			}
		})
	}
}
