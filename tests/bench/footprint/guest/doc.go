// Package guest is what the footprint benchmark runs inside its virtual machine: tests with the tag vmguest.
package guest
