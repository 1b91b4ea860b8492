// Package guest is what the tunnel benchmark runs inside its virtual machine: tests with the tag vmguest.
package guest
