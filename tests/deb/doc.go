// Package deb holds the tests of the Debian package, which install it in a chroot: they carry the build tag deb (`make test-deb`).
package deb
