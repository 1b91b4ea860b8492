package slots

import (
	"bytes"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"crypto/x509/pkix"
	"debug/pe"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math/big"
	"os"
	"path/filepath"
	"time"
)

// firmwareKey makes a key and a certificate of itself, which is all that Secure Boot needs: it looks neither at names nor, as a rule, at
// dates. RSA of 2048 bits is what UEFI has firmware know (2.10, 32.2.4).
func firmwareKey() (key, certificate []byte, err error) {
	private, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		return nil, nil, err
	}
	serial, err := rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 120))
	if err != nil {
		return nil, nil, err
	}
	from := time.Now().UTC().Add(-24 * time.Hour) // clocks of build machines differ
	template := &x509.Certificate{
		SerialNumber: serial, Subject: pkix.Name{CommonName: "Sluice image"}, NotBefore: from, NotAfter: from.AddDate(30, 0, 0),
		KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageCodeSigning}, BasicConstraintsValid: true,
	}
	if certificate, err = x509.CreateCertificate(rand.Reader, template, template, &private.PublicKey, private); err != nil {
		return nil, nil, err
	}
	key, err = x509.MarshalPKCS8PrivateKey(private)
	return key, certificate, err
}

// Vendors of the variables of Secure Boot.
const (
	globalGUID   = "8be4df61-93ca-11d2-aa0d-00e098032b8c"
	securityGUID = "d719b2cb-3d3a-4596-a3bc-dad00e67656f"
)

// certX509 is EFI_CERT_X509_GUID, as it lies in memory.
var certX509 = []byte{0xa1, 0x59, 0xc0, 0xa5, 0xe4, 0x94, 0xa7, 0x4a, 0x87, 0xb5, 0xab, 0x15, 0x5c, 0x2b, 0xf0, 0x72}

// raw is a variable without the attributes in front; nil where there is none.
func (e efivars) raw(name, vendor string) ([]byte, error) {
	data, err := os.ReadFile(filepath.Join(string(e), name+"-"+vendor))
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil, nil
	case err != nil:
		return nil, fmt.Errorf("EFI variable %s: %w", name, err)
	}
	return data[min(4, len(data)):], nil
}

// startable refuses an image that this machine's firmware would not start: such an update could only fail. Whether the bytes are those that
// were signed is the business of FILE.sig; here it is looked whether the signer is one of the firmware's db.
func (e efivars) startable(image io.ReaderAt) error {
	on, err := e.raw("SecureBoot", globalGUID)
	if err != nil || !bytes.Equal(on, []byte{1}) {
		return err
	}
	signature, err := authenticode(image)
	if err != nil {
		return err
	}
	if len(signature) == 0 {
		return errors.New("it is not signed for Secure Boot, which is on here, so the firmware would not start it: build it with SIGN=")
	}
	db, err := e.raw("db", securityGUID)
	if err != nil {
		return err
	}
	for _, certificate := range certificates(db) {
		if bytes.Contains(signature, certificate) { // PKCS #7 carries its signer's whole
			return nil
		}
	}
	return errors.New("no certificate of this machine's firmware (db) signed it, and Secure Boot is on here, so the firmware would not start it: " +
		"build it with the SIGN= whose KEY.uefi.crt is enrolled, or enroll the new one first")
}

// maxSignatures bounds a PE file's attribute certificates.
const maxSignatures = 1 << 20

// authenticode returns the attribute certificates of a PE file (Microsoft's "PE Format"), nil where it has none. Their directory entry
// has an offset in the file, where those of others have an address.
func authenticode(image io.ReaderAt) ([]byte, error) {
	f, err := pe.NewFile(image)
	if err != nil {
		return nil, err
	}
	header, ok := f.OptionalHeader.(*pe.OptionalHeader64)
	if !ok {
		return nil, nil
	}
	at := header.DataDirectory[pe.IMAGE_DIRECTORY_ENTRY_SECURITY]
	if at.Size > maxSignatures {
		return nil, fmt.Errorf("its signatures for Secure Boot have %d bytes", at.Size)
	}
	out := make([]byte, at.Size)
	if _, err := image.ReadAt(out, int64(at.VirtualAddress)); err != nil {
		return nil, fmt.Errorf("its signature for Secure Boot is cut off: %w", err)
	}
	return out, nil
}

// certificates are those of an EFI signature database (UEFI 2.10, 32.4.1): lists of a type (GUID), the list's size, the size of a header
// of the type, and that of each entry, which begins with its owner (GUID). All little-endian.
func certificates(db []byte) (out [][]byte) {
	const listHeader, owner = 28, 16
	for len(db) >= listHeader {
		size, header, each := binary.LittleEndian.Uint32(db[16:]), binary.LittleEndian.Uint32(db[20:]), binary.LittleEndian.Uint32(db[24:])
		if size < listHeader || int64(size) > int64(len(db)) || int64(header) > int64(size)-listHeader || each <= owner {
			return out
		}
		if entries := db[listHeader+header : size]; bytes.Equal(db[:16], certX509) {
			for ; len(entries) >= int(each); entries = entries[each:] {
				out = append(out, entries[owner:each])
			}
		}
		db = db[size:]
	}
	return out
}
