package slots

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"testing"
)

// bootable holds what is on the disk against systemd-boot: it starts something whole, and where that fails its tries, in the end the
// version that must not be lost.
func bootable(files map[string][]byte, safe string) error {
	var names []Name
	for file, data := range files {
		if n, ok := ParseName(file); ok && len(data) > 0 { // systemd-boot passes over what has no sections
			names = append(names, n)
		}
	}
	for range 20 {
		n, ok := Choose(names, "", "")
		if !ok {
			return errors.New("nothing boots")
		}
		i := slices.Index(names, n)
		if data := contents(files, n.Version); !bytes.Equal(data, image(n.Version)) {
			return fmt.Errorf("%s is chosen, and has %d bytes of %d", n.File(), len(data), len(image(n.Version)))
		}
		if n.Version == safe {
			return nil
		}
		// Anything else has to be a try that ends.
		if names[i] = bumped(n); names[i] == n {
			return fmt.Errorf("%s is chosen for good, and not %s", n.File(), safe)
		}
	}
	return fmt.Errorf("%s never comes back: %v", safe, names)
}

// contents are those of a version's file, whatever its counter is by now.
func contents(files map[string][]byte, version string) []byte {
	for file, data := range files {
		if n, ok := ParseName(file); ok && n.Version == version && len(data) > 0 {
			return data
		}
	}
	return nil
}

// cutEverywhere runs what is to be done with a power cut, and then with a failing disk, ahead of each of its operations.
func cutEverywhere(t *testing.T, start func() *memory, do func(*memory) error, holds func(after *memory) error) {
	t.Helper()
	states := map[string]bool{}
	check := func(m *memory, at int) {
		m.afterCut(func(after *memory) {
			shape := after.shape()
			if states[shape] {
				return
			}
			states[shape] = true
			if err := holds(after); err != nil {
				t.Fatalf("a power cut ahead of operation %d leaves %v: %v", at, slices.Sorted(maps.Keys(after.files())), err)
			}
		})
	}
	for at := 0; ; at++ {
		m := start()
		m.cut = at
		err := do(m)
		check(m, at)
		if err == nil {
			if at < 2 {
				t.Fatalf("it took %d operations: nothing was tried", at)
			}
			t.Logf("%d operations, %d states of the disk", at, len(states))
			return
		}
		if !errors.Is(err, errCut) {
			t.Fatalf("operation %d: %v", at, err)
		}
		// The same operation fails, and whoever works goes on and cleans up.
		m = start()
		m.cut, m.fail = at, errors.New("input/output error")
		if err := do(m); err == nil {
			t.Fatalf("operation %d fails, and nobody says so", at)
		}
		check(m, at)
	}
}

func TestAPowerCutAtAnyInstantOfAnInstallLeavesANodeThatBoots(t *testing.T) {
	whole := int64(len(image("1.1")))
	for _, c := range []struct {
		name, running string
		files         []string
		room          int64
	}{
		{"one slot", "1.1", []string{"sluice_1.1.efi"}, 100 * whole},
		{"two slots", "1.1", []string{"sluice_1.1.efi", "sluice_1.0.efi"}, 100 * whole},
		{"a failed update of the same version", "1.1", []string{"sluice_1.1.efi", "sluice_1.2+0-3.efi"}, 100 * whole},
		{"a staged update of the same version", "1.1", []string{"sluice_1.1.efi", "sluice_1.2+3.efi"}, 100 * whole},
		{"a newer version aside", "1.1", []string{"sluice_1.1.efi", "sluice_1.3+0.efi"}, 100 * whole},
		{"a leftover", "1.1", []string{"sluice_1.1.efi", "sluice_1.0.efi", "sluice_1.2+3.efi.new"}, 100 * whole},
		{"room for two alone", "1.1", []string{"sluice_1.1.efi", "sluice_1.0.efi"}, 2*whole + slack + 1000},
		{"more than two", "1.1", []string{"sluice_1.1.efi", "sluice_1.0.efi", "sluice_0.9.efi"}, 100 * whole},
	} {
		t.Run(c.name, func(t *testing.T) {
			n := newNode(t, c.running)
			from, later := n.release(t, "1.2"), []string{n.release(t, "1.4"), n.release(t, "1.5")}
			start := func() *memory {
				files := map[string][]byte{}
				for _, f := range c.files {
					name, ok := ParseName(f)
					if !ok {
						files[f] = []byte("torn")
						continue
					}
					files[f] = image(name.Version)
				}
				return newMemory(c.room+100*slack, files)
			}
			if c.name == "room for two alone" {
				plain := start
				start = func() *memory { m := plain(); m.room = c.room; return m }
			}
			do := func(m *memory) error {
				n.Machine.esp = m
				_, err := n.Install(context.Background(), from, InstallOptions{})
				return err
			}
			cutEverywhere(t, start, do, func(after *memory) error {
				files := after.files()
				if !bytes.Equal(files["sluice_1.1.efi"], image("1.1")) {
					return errors.New("the running version was touched")
				}
				seen := map[string]string{}
				for f := range files {
					if name, ok := ParseName(f); ok {
						if seen[name.Version] != "" {
							return fmt.Errorf("%s stands beside %s", f, seen[name.Version])
						}
						seen[name.Version] = f
					}
				}
				if err := bootable(files, c.running); err != nil {
					return err
				}
				return goesOn(t, n, after, c.running, later)
			})
			m := start()
			if err := do(m); err != nil {
				t.Fatal(err)
			}
			if got, want := slices.Sorted(maps.Keys(m.now)), []string{"sluice_1.1.efi", "sluice_1.2+3.efi"}; !slices.Equal(got, want) {
				t.Errorf("in the end there are %q, want %q", got, want)
			}
		})
	}
}

// goesOn is the life after a power cut: what the loader starts passes, and updates replace what does not run. However files share their
// clusters, both slots are whole in the end.
func goesOn(t *testing.T, n *node, after *memory, safe string, updates []string) error {
	t.Helper()
	defer n.boot(t, safe)
	for _, update := range updates {
		var names []Name
		for file, node := range after.now {
			if name, ok := ParseName(file); ok && len(node.data) > 0 {
				names = append(names, name)
			}
		}
		next, ok := Choose(names, "", "")
		if !ok {
			return errors.New("nothing boots")
		}
		if next.Counted { // systemd-bless-boot
			if err := after.rename(next.File(), next.plain().File()); err != nil {
				return err
			}
		}
		n.boot(t, next.Version)
		n.Machine.esp = after
		in, err := n.Install(context.Background(), update, InstallOptions{})
		if err != nil {
			return fmt.Errorf("version %s runs, and no update goes: %w", next.Version, err)
		}
		files := after.files()
		for _, v := range []string{next.Version, in.Version} {
			if !bytes.Equal(contents(files, v), image(v)) {
				return fmt.Errorf("after the update to %s version %s is not whole: %v", in.Version, v, slices.Sorted(maps.Keys(files)))
			}
		}
		if err := bootable(files, next.Version); err != nil {
			return err
		}
	}
	return nil
}

// A rename by hand touches the running slot: what a power cut leaves of it must boot, one version or the other.
func TestAPowerCutAtAnyInstantOfARollbackLeavesANodeThatBoots(t *testing.T) {
	for _, c := range []struct {
		name, running string
		files         []string
		do            func(*Machine) error
		end           []string
	}{
		{"rollback", "1.2", []string{"sluice_1.2.efi", "sluice_1.1.efi"}, rollback, []string{"sluice_1.1.efi", "sluice_1.2+0.efi"}},
		{"and forth", "1.1", []string{"sluice_1.2+0.efi", "sluice_1.1.efi"}, rollback, []string{"sluice_1.1.efi", "sluice_1.2.efi"}},
		{"in a try", "1.2", []string{"sluice_1.2+2-1.efi", "sluice_1.1.efi"}, rollback, []string{"sluice_1.1.efi", "sluice_1.2+0.efi"}},
		{"in a try of an old one", "1.0", []string{"sluice_1.0+2-1.efi", "sluice_1.1.efi"}, rollback, []string{"sluice_1.0+0.efi", "sluice_1.1.efi"}},
		{"promote", "1.2", []string{"sluice_1.2+2-1.efi", "sluice_1.1.efi"}, promote, []string{"sluice_1.1.efi", "sluice_1.2.efi"}},
		{"promote an old one", "1.0", []string{"sluice_1.0+2-1.efi", "sluice_1.1.efi"}, promote, []string{"sluice_1.0.efi", "sluice_1.1+0.efi"}},
		{"promote against what is staged", "1.1", []string{"sluice_1.1.efi", "sluice_1.2+3.efi"}, promote, []string{"sluice_1.1.efi", "sluice_1.2+0.efi"}},
		{"an old one passes", "1.0", []string{"sluice_1.0+2-1.efi", "sluice_1.1.efi"}, (*Machine).Keep, []string{"sluice_1.0+2-1.efi", "sluice_1.1+0.efi"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			n := newNode(t, c.running)
			start := func() *memory {
				files := map[string][]byte{}
				for _, f := range c.files {
					name, _ := ParseName(f)
					files[f] = image(name.Version)
				}
				return newMemory(1<<30, files)
			}
			do := func(m *memory) error {
				n.Machine.esp = m
				return c.do(n.Machine)
			}
			cutEverywhere(t, start, do, func(after *memory) error {
				files := after.files()
				var names []Name
				for f, data := range files {
					if name, ok := ParseName(f); ok && len(data) > 0 {
						names = append(names, name)
					}
				}
				next, ok := Choose(names, "", "")
				if !ok {
					return errors.New("nothing boots")
				}
				return bootable(files, next.Version)
			})
			m := start()
			if err := do(m); err != nil {
				t.Fatal(err)
			}
			if got := slices.Sorted(maps.Keys(m.now)); !slices.Equal(got, c.end) {
				t.Errorf("in the end there are %q, want %q", got, c.end)
			}
		})
	}
}

func rollback(m *Machine) error {
	_, err := m.Rollback()
	return err
}

func promote(m *Machine) error {
	_, err := m.Promote()
	return err
}
