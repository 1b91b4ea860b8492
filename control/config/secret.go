package config

// secretKeys are keys that would hold a secret in the open, and the key that names its file. Their values are never
// printed.
func secretKeys() map[string]string {
	return map[string]string{
		"password":      "password_file",
		"password_hash": "password_hash_file",
		"md5":           "password_file",
		"private_key":   "wireguard.private_key_file",
		"privatekey":    "wireguard.private_key_file",
		"preshared_key": "preshared_key_file",
		"psk":           "preshared_key_file",
		"secret":        "preshared_key_file",
		"master_key":    "master_key_file",
	}
}
