// SPDX-License-Identifier: Apache-2.0

// Package address reads and writes the image addresses of a live move: where a
// container goes to, and where one comes from.
package address

import (
	"errors"
	"fmt"
	"net"
	"net/url"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/io-mig/mig/layers/request/policy"
	"github.com/io-mig/mig/spec/wire"
)

// The schemes.
const (
	MoveScheme     = "mig"
	IncomingScheme = "mig-incoming"
)

// DefaultPort is where migd listens.
const DefaultPort = "7117"

// Move is a container's way to another host:
//
//	mig://HOST[:PORT]?token=...&strategy=pre-copy&downtime=20ms
type Move struct {
	// Host is HOST:PORT.
	Host string
	// Token of the move; zero while none was agreed on (Prepared).
	Token wire.Token
	// Strategy by its name, empty for the default. Downtime is its budget,
	// Timeout bounds everything before the switch, Rounds the early rounds; 0
	// means the strategy's own.
	Strategy          string
	Downtime, Timeout time.Duration
	Rounds            int
	// AutoConverge slows the container down while rounds do not get it over.
	AutoConverge bool
	// Streams is the number of data connections, 0 for the default.
	Streams int
	// Bandwidth in bytes a second, 0 for no limit.
	Bandwidth int64
	// Compress is auto, zstd or none.
	Compress string
	// TLS is the directory of this host's identity. Insecure talks in plain text,
	// for tests on the loopback.
	TLS      string
	Insecure bool
	// Peer is the name that the destination's certificate must have; empty means
	// the host of Host.
	Peer string
	// Policies are those of this move (policy.Encode), empty for none.
	Policies string
}

// Prepared reports whether a destination has agreed to the move.
func (m Move) Prepared() bool { return m.Token != wire.Token{} }

// PeerName is what the destination's certificate must name.
func (m Move) PeerName() string {
	if m.Peer != "" {
		return m.Peer
	}
	host, _, err := net.SplitHostPort(m.Host)
	if err != nil {
		return m.Host
	}
	return host
}

// Limits of what an address may ask for.
const (
	MaxRounds  = 1000
	MaxStreams = wire.MaxConnections
)

// IsMove reports whether an image's address is one of a move.
func IsMove(image string) bool { return strings.HasPrefix(image, MoveScheme+":") }

// ParseMove reads an address. Everything in it is checked.
func ParseMove(s string) (Move, error) {
	m, err := parseMove(s)
	if err != nil {
		return Move{}, fmt.Errorf("address %q: %w", s, err)
	}
	return m, nil
}

func parseMove(s string) (m Move, err error) {
	u, err := url.Parse(s)
	if err != nil {
		return m, err
	}
	if u.Scheme != MoveScheme || u.Opaque != "" || u.User != nil || u.Fragment != "" || strings.Trim(u.Path, "/") != "" {
		return m, errors.New("want mig://HOST[:PORT][?OPTIONS]")
	}
	if u.Hostname() == "" {
		return m, errors.New("it names no host")
	}
	port := u.Port()
	if port == "" {
		port = DefaultPort
	}
	m.Host = net.JoinHostPort(u.Hostname(), port)
	r := options{}
	if r.values, err = url.ParseQuery(u.RawQuery); err != nil {
		return m, err
	}
	if t := r.text("token"); t != "" {
		m.Token, r.err = wire.ParseToken(t)
	}
	m.Strategy, m.Compress, m.Peer = r.text("strategy"), r.text("compress"), r.text("peer")
	m.Downtime, m.Timeout = r.duration("downtime"), r.duration("timeout")
	m.Rounds, m.Streams = int(r.number("rounds", MaxRounds)), int(r.number("streams", MaxStreams))
	m.Bandwidth = r.number("bandwidth", 1<<50)
	m.AutoConverge = r.flag("auto-converge")
	m.TLS, m.Insecure = r.identity()
	m.Policies = r.policies()
	if m.Prepared() && m.TLS == "" && !m.Insecure && r.err == nil {
		r.err = errors.New("give tls=DIRECTORY (or insecure=true for a test on the loopback)")
	}
	return m, r.end()
}

// String is the address.
func (m Move) String() string {
	v := url.Values{}
	set := func(key, value string, zero bool) {
		if !zero {
			v.Set(key, value)
		}
	}
	set("token", m.Token.String(), !m.Prepared())
	set("strategy", m.Strategy, m.Strategy == "")
	set("downtime", m.Downtime.String(), m.Downtime == 0)
	set("timeout", m.Timeout.String(), m.Timeout == 0)
	set("rounds", strconv.Itoa(m.Rounds), m.Rounds == 0)
	set("auto-converge", "true", !m.AutoConverge)
	set("streams", strconv.Itoa(m.Streams), m.Streams == 0)
	set("bandwidth", strconv.FormatInt(m.Bandwidth, 10), m.Bandwidth == 0)
	set("compress", m.Compress, m.Compress == "")
	set("tls", m.TLS, m.TLS == "")
	set("insecure", "true", !m.Insecure)
	set("peer", m.Peer, m.Peer == "")
	set("policies", m.Policies, m.Policies == "")
	u := url.URL{Scheme: MoveScheme, Host: m.Host, RawQuery: v.Encode()}
	return u.String()
}

// Incoming is where a restoring engine finds the connections of a move:
//
//	mig-incoming:/run/migd/incoming/TOKEN.sock?tls=DIR&from=NAME
type Incoming struct {
	// Socket is the path that incoming.Acceptor.Expect has named.
	Socket string
	Token  wire.Token
	// TLS and Insecure are as in Move.
	TLS      string
	Insecure bool
	// From is the host with which the move was agreed (identity.Name): nobody else's
	// connections are taken. The token is no secret, it travels in the clear. Empty:
	// any host of the authority.
	From string
}

// IsIncoming reports whether an image's address is one of an incoming move.
func IsIncoming(image string) bool { return strings.HasPrefix(image, IncomingScheme+":") }

// ParseIncoming reads an address.
func ParseIncoming(s string) (Incoming, error) {
	i, err := parseIncoming(s)
	if err != nil {
		return Incoming{}, fmt.Errorf("address %q: %w", s, err)
	}
	return i, nil
}

func parseIncoming(s string) (i Incoming, err error) {
	u, err := url.Parse(s)
	if err != nil {
		return i, err
	}
	if u.Scheme != IncomingScheme || u.Host != "" || u.Opaque != "" || !filepath.IsAbs(u.Path) || filepath.Clean(u.Path) != u.Path {
		return i, errors.New("want mig-incoming:/DIRECTORY/TOKEN.sock")
	}
	i.Socket = u.Path
	name, ok := strings.CutSuffix(filepath.Base(u.Path), ".sock")
	if !ok {
		return i, errors.New("the socket's name does not end in .sock")
	}
	if i.Token, err = wire.ParseToken(name); err != nil {
		return i, err
	}
	r := options{}
	if r.values, err = url.ParseQuery(u.RawQuery); err != nil {
		return i, err
	}
	i.TLS, i.Insecure = r.identity()
	i.From = r.text("from")
	if i.TLS == "" && !i.Insecure && r.err == nil {
		r.err = errors.New("give tls=DIRECTORY (or insecure=true for a test on the loopback)")
	}
	return i, r.end()
}

// String is the address.
func (i Incoming) String() string {
	v := url.Values{}
	if i.TLS != "" {
		v.Set("tls", i.TLS)
	}
	if i.Insecure {
		v.Set("insecure", "true")
	}
	if i.From != "" {
		v.Set("from", i.From)
	}
	u := url.URL{Scheme: IncomingScheme, Path: i.Socket, OmitHost: true, RawQuery: v.Encode()}
	return u.String()
}

// options reads an address's options; the first error stays.
type options struct {
	values url.Values
	known  []string
	err    error
}

func (o *options) text(key string) string {
	o.known = append(o.known, key)
	if len(o.values[key]) > 1 {
		o.fail(key, "it comes twice")
	}
	return o.values.Get(key)
}

func (o *options) fail(key, why string) {
	if o.err == nil {
		o.err = fmt.Errorf("option %s: %s", key, why)
	}
}

func (o *options) duration(key string) time.Duration {
	s := o.text(key)
	if s == "" {
		return 0
	}
	d, err := time.ParseDuration(s)
	if err != nil || d < 0 {
		o.fail(key, fmt.Sprintf("%q is no duration such as 20ms", s))
	}
	return d
}

func (o *options) number(key string, limit int64) int64 {
	s := o.text(key)
	if s == "" {
		return 0
	}
	n, err := strconv.ParseInt(s, 10, 64)
	if err != nil || n < 0 || n > limit {
		o.fail(key, fmt.Sprintf("%q is no number from 0 to %d", s, limit))
	}
	return n
}

func (o *options) policies() string {
	p, err := policy.Decode(o.text("policies"))
	if err != nil {
		o.fail("policies", err.Error())
	}
	return policy.Encode(p)
}

// flag reads true or false.
func (o *options) flag(key string) bool {
	switch s := o.text(key); s {
	case "true":
		return true
	case "", "false":
	default:
		o.fail(key, fmt.Sprintf("%q is neither true nor false", s))
	}
	return false
}

func (o *options) identity() (dir string, insecure bool) {
	dir = o.text("tls")
	if dir != "" && !filepath.IsAbs(dir) {
		o.fail("tls", "the directory must be absolute")
	}
	switch s := o.text("insecure"); s {
	case "", "false":
	case "true":
		insecure = true
	default:
		o.fail("insecure", fmt.Sprintf("%q is neither true nor false", s))
	}
	if insecure && dir != "" {
		o.fail("insecure", "it excludes tls")
	}
	return dir, insecure
}

// end refuses options that nobody knows: a misspelt limit must not be dropped.
func (o *options) end() error {
	for key := range o.values {
		if !slices.Contains(o.known, key) {
			o.fail(key, "it is not known")
		}
	}
	return o.err
}
