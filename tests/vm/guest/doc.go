// Package guest holds tests that run inside the VM of package vm only: they carry the build tag vmguest, so that a run
// on the host neither starts nor skips them.
package guest
