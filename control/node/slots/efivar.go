package slots

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"unicode/utf16"

	"golang.org/x/sys/unix"
)

// loaderGUID is the vendor of the variables of the Boot Loader Interface.
const loaderGUID = "4a67b082-0a4c-41cf-b6c7-440b29bb8c4f"

// The variables, see https://systemd.io/BOOT_LOADER_INTERFACE.
const (
	varCounted  = "LoaderBootCountPath"
	varSelected = "LoaderEntrySelected"
	varOneshot  = "LoaderEntryOneShot"
	varDefault  = "LoaderEntryDefault"
)

// attributes of a variable: non-volatile, for boot services and for the running system.
const attributes = 0x7

// immutable is FS_IMMUTABLE_FL of linux/fs.h.
const immutable = 0x10

// efivars is where efivarfs is mounted.
type efivars string

func (e efivars) path(name string) string { return filepath.Join(string(e), name+"-"+loaderGUID) }

// get is "" for a variable that is not there: four bytes of attributes, then UTF-16, little endian, with a zero at its end.
func (e efivars) get(name string) (string, error) {
	data, err := os.ReadFile(e.path(name))
	if errors.Is(err, fs.ErrNotExist) {
		return "", nil
	}
	if err != nil {
		return "", fmt.Errorf("EFI variable %s: %w", name, err)
	}
	if len(data) < 4 {
		return "", nil
	}
	var units []uint16
	for data = data[4:]; len(data) >= 2; data = data[2:] {
		u := binary.LittleEndian.Uint16(data)
		if u == 0 {
			break
		}
		units = append(units, u)
	}
	return string(utf16.Decode(units)), nil
}

// set writes a variable. The kernel wants all of it in one write, and gives none or all of it to the firmware.
func (e efivars) set(name, value string) error {
	data := binary.LittleEndian.AppendUint32(nil, attributes)
	for _, u := range append(utf16.Encode([]rune(value)), 0) {
		data = binary.LittleEndian.AppendUint16(data, u)
	}
	if err := e.changeable(name); err != nil {
		return err
	}
	if err := os.WriteFile(e.path(name), data, 0o600); err != nil {
		return fmt.Errorf("EFI variable %s: %w", name, err)
	}
	return nil
}

func (e efivars) unset(name string) error {
	if err := e.changeable(name); err != nil {
		return err
	}
	if err := os.Remove(e.path(name)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("EFI variable %s: %w", name, err)
	}
	return nil
}

// changeable takes away the immutable flag, by which efivarfs guards variables against rm -rf.
func (e efivars) changeable(name string) error {
	f, err := os.Open(e.path(name))
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	defer f.Close()
	flags, err := unix.IoctlGetInt(int(f.Fd()), unix.FS_IOC_GETFLAGS)
	if err != nil || flags&immutable == 0 {
		return nil // a file system without such flags
	}
	if err := unix.IoctlSetPointerInt(int(f.Fd()), unix.FS_IOC_SETFLAGS, flags&^immutable); err != nil {
		return fmt.Errorf("EFI variable %s is immutable: %w", name, err)
	}
	return nil
}
