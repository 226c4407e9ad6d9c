package guard

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"os"
	"strings"
	"time"

	"github.com/valkey-io/valkey-go"
)

// A SharedStoreConfig is the part of the [store] table that is for kind =
// "valkey": where the store is that a fleet of proxies shares.
type SharedStoreConfig struct {
	// Addresses are those of the server; of several Cluster nodes; or, with
	// SentinelMaster, of the Sentinels.
	Addresses []string `toml:"addresses"`
	// SentinelMaster is the name of the master that the Sentinels watch; empty:
	// there are none.
	SentinelMaster string `toml:"sentinel-master"`
	// Cluster says that the addresses are a Cluster's.
	Cluster bool `toml:"cluster"`
	// Username is the ACL user; empty: the default user.
	Username string `toml:"username"`
	// Password, or the first line of PasswordFile, is the user's password.
	Password     string `toml:"password"`
	PasswordFile string `toml:"password-file"`
	// SentinelPasswordFile holds the Sentinels' password; empty: they have none.
	SentinelPasswordFile string `toml:"sentinel-password-file"`
	// TLS speaks TLS with the store; TLSCA is the file of the authorities to be
	// trusted, empty: the system's.
	TLS   bool   `toml:"tls"`
	TLSCA string `toml:"tls-ca"`
	// TLSCert and TLSKey are the files of our own certificate, if it is asked
	// for. TLSServerName is the name in the server's; empty: its address.
	TLSCert       string `toml:"tls-cert"`
	TLSKey        string `toml:"tls-key"`
	TLSServerName string `toml:"tls-server-name"`
	// Prefix begins every key, so that several fleets can share a store.
	Prefix string `toml:"prefix"`
	// Timeout is for how long a credential waits for the store. After it this
	// node decides alone and settles later.
	Timeout Duration `toml:"timeout"`
}

func defaultSharedStoreConfig() SharedStoreConfig {
	return SharedStoreConfig{Addresses: []string{}, Prefix: "mailreeve:", Timeout: Duration(50 * time.Millisecond)}
}

// validate tells what is wrong. It opens nothing.
func (c *SharedStoreConfig) validate() error {
	if len(c.Addresses) == 0 {
		return errors.New(`store.addresses: name the server, such as ["127.0.0.1:6379"]`)
	}
	for i, a := range c.Addresses {
		if host, port, err := net.SplitHostPort(a); err != nil || host == "" || port == "" {
			return fmt.Errorf("store.addresses: entry %d: %q is no address with a port, such as 127.0.0.1:6379", i+1, a)
		}
	}
	switch {
	case c.Cluster && c.SentinelMaster != "":
		return errors.New("store.sentinel-master: a Cluster has no Sentinels; leave it or cluster out")
	case len(c.Addresses) > 1 && !c.Cluster && c.SentinelMaster == "":
		return errors.New("store.addresses: several addresses are a Cluster's (cluster = true) or Sentinels' (sentinel-master); a single server has one")
	case c.Password != "" && c.PasswordFile != "":
		return errors.New("store.password-file: password is set too; leave one out")
	case c.Username != "" && c.Password == "" && c.PasswordFile == "":
		return errors.New("store.username: a user needs a password or a password-file")
	case c.Prefix == "" || len(c.Prefix) > 64 || strings.ContainsAny(c.Prefix, "{} \t\r\n*?[]\\"):
		return fmt.Errorf("store.prefix: %q; it has 1 to 64 characters, no blanks, and none of {}*?[]\\", c.Prefix)
	case c.Timeout.Std() < time.Millisecond || c.Timeout.Std() > 10*time.Second:
		return fmt.Errorf("store.timeout: %v is out of range, from 1ms to 10s", c.Timeout)
	case !c.TLS && (c.TLSCA != "" || c.TLSCert != "" || c.TLSKey != "" || c.TLSServerName != ""):
		return errors.New("store.tls: it is off, but other tls- settings are there; set tls = true")
	case (c.TLSCert == "") != (c.TLSKey == ""):
		return errors.New("store.tls-cert: tls-cert and tls-key go together")
	}
	return nil
}

// options makes the client's options. It reads the files.
func (c *SharedStoreConfig) options() (valkey.ClientOption, error) {
	o := valkey.ClientOption{
		InitAddress: c.Addresses, Username: c.Username, Password: c.Password, ClientName: "mailreeve",
		ClientSetInfo: valkey.DisableClientSetInfo, DisableCache: true, DisableRetry: true,
		ForceSingleClient: !c.Cluster && c.SentinelMaster == "",
		Dialer:            net.Dialer{Timeout: 2 * time.Second, KeepAlive: time.Second},
		DialCtxFn:         dialStore(c.SentinelMaster != ""),
		// A server that answers nothing for so long is given up, with its
		// connections: it may have been replaced.
		ConnWriteTimeout: 3 * time.Second,
		// One connection keeps the order of what this node sends. A call on it
		// that takes too long is given up, but the connection is not: without
		// AlwaysPipelining it would be closed whenever nobody else uses it, and
		// on a machine that is short of CPU each late answer would cost a new
		// connection that is late again.
		// 0 would be as many as there are cores, up to four.
		PipelineMultiplex: -1, BlockingPoolSize: 8, AlwaysPipelining: true,
	}
	if c.PasswordFile != "" {
		p, err := secretFile(c.PasswordFile)
		if err != nil {
			return o, fmt.Errorf("store.password-file: %w", err)
		}
		o.Password = p
	}
	if c.TLS {
		t, err := c.tls()
		if err != nil {
			return o, err
		}
		o.TLSConfig = t
	}
	if c.SentinelMaster != "" {
		o.Sentinel = valkey.SentinelOption{MasterSet: c.SentinelMaster, Dialer: o.Dialer, TLSConfig: o.TLSConfig,
			TopologyRefreshInterval: 2 * time.Second}
		if c.SentinelPasswordFile != "" {
			p, err := secretFile(c.SentinelPasswordFile)
			if err != nil {
				return o, fmt.Errorf("store.sentinel-password-file: %w", err)
			}
			o.Sentinel.Password = p
		}
	}
	if c.Cluster {
		o.ClusterOption = valkey.ClusterOption{ShardsRefreshInterval: 2 * time.Second, MaxMovedRedirections: 5}
	}
	return o, nil
}

// secretFile reads a password from the first line of a file.
func secretFile(path string) (string, error) {
	info, err := os.Stat(path)
	if err != nil {
		return "", err
	}
	if info.Size() > 4096 {
		return "", fmt.Errorf("%s has %d bytes; a password has one line", path, info.Size())
	}
	if info.Mode().Perm()&0o077 != 0 {
		return "", fmt.Errorf("%s may be read by others; chmod 600 it", path)
	}
	text, err := os.ReadFile(path)
	line, _, _ := strings.Cut(string(text), "\n")
	return strings.TrimRight(line, "\r"), err
}

func (c *SharedStoreConfig) tls() (*tls.Config, error) {
	t := &tls.Config{MinVersion: tls.VersionTLS12, ServerName: c.TLSServerName}
	if c.TLSCA != "" {
		text, err := os.ReadFile(c.TLSCA)
		if err != nil {
			return nil, fmt.Errorf("store.tls-ca: %w", err)
		}
		t.RootCAs = x509.NewCertPool()
		if !t.RootCAs.AppendCertsFromPEM(text) {
			return nil, fmt.Errorf("store.tls-ca: %s has no certificate in PEM", c.TLSCA)
		}
	}
	if c.TLSCert != "" {
		cert, err := tls.LoadX509KeyPair(c.TLSCert, c.TLSKey)
		if err != nil {
			return nil, fmt.Errorf("store.tls-cert: %w", err)
		}
		t.Certificates = []tls.Certificate{cert}
	}
	return t, nil
}
