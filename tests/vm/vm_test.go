package vm

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"sluice/tests/charon"
	"sluice/tests/nstest"
)

const guestPackage = "sluice/tests/vm/guest"

// steady has a guest's clock count its instructions (4 ns each) and jump while it is idle. Waiting takes no time then, and nothing
// in the guest depends on what else this machine does; computing takes a quarter longer.
var steady = []string{"-icount", "shift=2,sleep=off"}

func TestKernelWireGuard(t *testing.T) {
	Run(t, dir, Guest{
		Package: guestPackage,
		Modules: []string{"veth", "tun", "wireguard", "sch_plug"},
		Devices: steady,
		Args:    []string{"-test.skip=Object|Tags|NIC|Device|Paced|Netkit|ESP|Inner"},
	})
}

// ESP is in the VM because this kernel may have none.
var espModules = []string{"veth", "xfrm_user", "esp4", "esp6", "xfrm_interface", "gcm", "seqiv", "ghash_generic", "aesni_intel"}

func TestIPsec(t *testing.T) {
	Run(t, dir, Guest{Package: guestPackage, Modules: espModules, Devices: steady, Files: charonFiles(t), Args: []string{"-test.run=ESP", "-test.skip=^TestInner"}, Timeout: 15 * time.Minute})
}

// TestEveryObjectLoadsOnTheReferenceKernel takes the committed objects of the repository.
func TestEveryObjectLoadsOnTheReferenceKernel(t *testing.T) {
	root, err := moduleRoot(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	files := map[string]string{}
	for _, dir := range []string{"xdp", "tc"} {
		objects, err := filepath.Glob(filepath.Join(root, dir, "*.o"))
		if err != nil {
			t.Fatal(err)
		}
		if len(objects) == 0 {
			t.Errorf("there are no BPF objects in %s/: run make generate and commit them", dir)
		}
		for _, o := range objects {
			files["/objects/"+dir+"/"+filepath.Base(o)] = o
		}
	}
	if t.Failed() {
		return
	}
	r := Run(t, dir, Guest{Package: guestPackage, Modules: []string{"veth"}, Files: files, Args: []string{"-test.run=Object"}})
	for guest := range files {
		if !strings.Contains(r.Output, "--- PASS: TestEveryObjectLoads/"+strings.TrimPrefix(guest, "/objects/")) {
			t.Errorf("%s was not loaded", guest)
		}
	}
}

// TestVLANTags is in the VM for the NIC that QEMU makes, and for modules that this kernel may lack.
func TestVLANTags(t *testing.T) {
	Run(t, dir, Guest{
		Package: guestPackage,
		Modules: []string{"virtio_pci", "virtio_net", "e1000e", "8021q", "veth", "bonding"},
		Devices: []string{
			"-netdev", "hubport,id=up,hubid=0", "-device", "e1000e,netdev=up,mac=52:54:00:00:00:01,romfile=",
			"-netdev", "hubport,id=tor,hubid=0", "-device", "virtio-net-pci,netdev=tor,mac=52:54:00:00:00:02,romfile=",
		},
		Args: []string{"-test.run=Tags"},
	})
}

// TestNICs is in the VM for hardware as QEMU makes it: an e1000e, which has rings and moderates its interrupts, and a virtio NIC, which has
// queues. What its four come from is a tap, in a namespace of the test's own.
func TestNICs(t *testing.T) {
	root, err := moduleRoot(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if _, err := obtainKernel(t.Context(), filepath.Join(root, ".cache", "vm")); err != nil { // it may need the network
		t.Fatal(err)
	}
	nstest.Enter(t)
	Run(t, dir, Guest{
		Package: guestPackage,
		Modules: []string{"virtio_pci", "virtio_net", "e1000e", "8021q", "veth"},
		CPUs:    2,
		Devices: append([]string{
			"-netdev", "hubport,id=up,hubid=0", "-device", "e1000e,netdev=up,mac=52:54:00:00:00:01,romfile=",
			"-netdev", "hubport,id=tor,hubid=0", "-device", "virtio-net-pci,netdev=tor,mac=52:54:00:00:00:02,romfile=",
			"-netdev", "tap,id=many,queues=4,script=no,downscript=no", "-device", "virtio-net-pci,netdev=many,mq=on,vectors=10,mac=52:54:00:00:00:03,romfile=",
		}, steady...),
		Args:    []string{"-test.run=NIC"},
		Timeout: 15 * time.Minute,
	})
}

// TestNetkit is in the VM because this kernel may have none; the reference kernel has it built in.
func TestNetkit(t *testing.T) {
	Run(t, dir, Guest{Package: guestPackage, Modules: []string{"veth"}, Args: []string{"-test.run=Netkit"}, Timeout: 15 * time.Minute})
}

// TestInnerTraffic is in the VM for the kernel's own tunnels.
func TestInnerTraffic(t *testing.T) {
	Run(t, dir, Guest{
		Package: guestPackage,
		Modules: []string{"veth", "wireguard", "xfrm_user", "esp4", "esp6", "xfrm_interface", "gcm", "seqiv", "ghash_generic", "aesni_intel"},
		Args:    []string{"-test.run=^TestInner"},
		Timeout: 15 * time.Minute,
	})
}

// TestDevices is in the VM for modules that this kernel lacks.
func TestDevices(t *testing.T) {
	Run(t, dir, Guest{
		Package: guestPackage,
		Modules: []string{"veth", "8021q", "bonding"},
		Args:    []string{"-test.run=Device"},
	})
}

// charonFiles are strongSwan's charon with its plugins and libraries.
func charonFiles(t *testing.T) map[string]string {
	t.Helper()
	files, err := Programs(t.Context(), charon.Files()...)
	if err != nil {
		t.Fatal(err)
	}
	return files
}

// TestIKE is about charon and the kernel's own ESP; what it shares with the tests on the host is in its package.
func TestIKE(t *testing.T) {
	Run(t, dir, Guest{Package: "sluice/crypto/ike", Modules: espModules, Devices: steady, Files: charonFiles(t), Args: []string{"-test.run=Kernel"}, Timeout: 20 * time.Minute})
}

// TestPacing needs fq, which few kernels of test machines have, and time that passes evenly.
func TestPacing(t *testing.T) {
	Run(t, dir, Guest{
		Package: guestPackage,
		Modules: []string{"veth", "sch_fq"},
		Devices: steady,
		Args:    []string{"-test.run=Paced"},
		Timeout: 15 * time.Minute,
	})
}

func TestAGuestThatDoesNotEndInTimeIsKilled(t *testing.T) {
	root, err := moduleRoot(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	k, err := obtainKernel(t.Context(), filepath.Join(root, ".cache", "vm"))
	if err != nil {
		t.Fatal(err)
	}
	// No kernel is done in this time, whatever its initramfs holds.
	initrd := filepath.Join(t.TempDir(), "initramfs")
	if err := os.WriteFile(initrd, make([]byte, 512), 0o600); err != nil {
		t.Fatal(err)
	}
	_, err = boot(t.Context(), t.Output(), k.image, initrd, Guest{Timeout: 200 * time.Millisecond})
	if err == nil || !strings.Contains(err.Error(), "was killed") {
		t.Errorf("error %v", err)
	}
}

func TestARunIsGoodOnlyIfTestsRanAndPassed(t *testing.T) {
	const kernel = "VMTEST-KERNEL=6.12.0\n"
	cases := map[string]struct{ output, says string }{
		"passed":          {kernel + "--- PASS: TestA (0.00s)\nPASS\n\nVMTEST-RC=0\n", ""},
		"failed":          {kernel + "--- PASS: TestA (0.00s)\n--- FAIL: TestB (0.00s)\n\nVMTEST-RC=1\n", "code 1"},
		"no test":         {kernel + "testing: warning: no tests to run\nPASS\n\nVMTEST-RC=0\n", "no test ran"},
		"subtests only":   {kernel + "    --- PASS: TestA/b (0.00s)\n\nVMTEST-RC=0\n", "no test ran"},
		"skipped":         {kernel + "--- PASS: TestA (0.00s)\n--- SKIP: TestB (0.00s)\n\nVMTEST-RC=0\n", "TestB was skipped"},
		"skipped subtest": {kernel + "--- PASS: TestA (0.00s)\n    --- SKIP: TestA/b (0.00s)\n\nVMTEST-RC=0\n", "skipped"},
		"panic":           {kernel + "--- PASS: TestA (0.00s)\nKernel panic - not syncing\n", "without a result"},
		"nothing":         {"", "without a result"},
	}
	for name, c := range cases {
		r, err := judge(Result{Output: c.output})
		if c.says == "" {
			if err != nil || r.Passed != 1 || r.Kernel != "6.12.0" {
				t.Errorf("%s: %+v, %v", name, r, err)
			}
		} else if err == nil || !strings.Contains(err.Error(), c.says) {
			t.Errorf("%s: %v, want %q", name, err, c.says)
		}
	}
}
