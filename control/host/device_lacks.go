package host

import "fmt"

// deviceModules are what makes the kinds of Device.
var deviceModules = map[string]struct{ module, option string }{
	"vlan": {"8021q", "CONFIG_VLAN_8021Q"}, "bond": {"bonding", "CONFIG_BONDING"},
}

// DevicesLacking says of kinds of device, "vlan" and "bond", why this kernel cannot make them. What cannot be told is left out.
// No module is loaded for it.
func DevicesLacking(kinds []string) map[string]string {
	out := map[string]string{}
	for _, kind := range kinds {
		m, known := deviceModules[kind]
		if state, err := moduleState(m.module, m.option); known && err == nil && state == moduleAbsent {
			out[kind] = fmt.Sprintf("this kernel has no module %s (%s)", m.module, m.option)
		}
	}
	return out
}
