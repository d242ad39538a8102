package webhook

import (
	"crypto/tls"
	"encoding/base64"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
)

// Config configures a Handler. The zero value of each field stands for its default.
type Config struct {
	// URL that the jobs are posted to: absolute, http or https, without a fragment. A user and password in it are sent
	// as basic authentication; they and the query are left out wherever the URL is printed. Required.
	URL string

	// Secrets that requests are signed with, each "whsec_" and the base64 of 24 to 64 bytes. Several are for rotation: a
	// receiver accepts a request if the signature by any one of them fits. Defaults to none: requests are not signed.
	Secrets []string

	// Headers are sent with every request. Those that the package sends itself can't be among them.
	Headers map[string]string

	// UserAgent of the requests. Defaults to "pgbell".
	UserAgent string

	// AllowHeld makes the answer 202 mean that the job is held: accepted, and settled later with its lease. Else a 202
	// completes the job, as every 2xx does.
	AllowHeld bool

	// MaxResponse is how many bytes of an answer are kept as the job's result. Defaults to 1 MiB.
	MaxResponse int

	// MaxIdleConns is how many connections are kept open between requests, for up to a second. As many as jobs run at
	// once are enough; fewer cost a new connection each time. Defaults to 1024.
	MaxIdleConns int

	// TLS is for private certificate authorities and client certificates. Defaults to the system's authorities.
	TLS *tls.Config

	// Proxy returns the proxy for a request, or nil. Defaults to http.ProxyFromEnvironment: HTTP_PROXY, HTTPS_PROXY and
	// NO_PROXY, and none for localhost and loopback addresses.
	Proxy func(*http.Request) (*url.URL, error)
}

const secretPrefix = "whsec_"

// settings are a Config that was checked.
type settings struct {
	config Config
	target *url.URL    // without user and password
	header http.Header // what every request has
	keys   [][]byte
	hide   *strings.Replacer // secrets, in errors
}

// check fills in the defaults and returns all mistakes joined, none of which tells a secret.
func (c Config) check() (*settings, error) {
	s := &settings{config: c, header: http.Header{}}
	if s.config.UserAgent == "" {
		s.config.UserAgent = "pgbell"
	}
	if s.config.MaxResponse == 0 {
		s.config.MaxResponse = 1 << 20
	}
	if s.config.MaxIdleConns == 0 {
		s.config.MaxIdleConns = 1024
	}
	if s.config.Proxy == nil {
		s.config.Proxy = http.ProxyFromEnvironment
	}

	mistakes := []error{s.checkURL(), s.checkSecrets(), s.checkHeaders()}
	if !isHeaderValue(s.config.UserAgent) {
		mistakes = append(mistakes, errors.New("user agent: must be one line without control characters"))
	}
	if s.config.MaxResponse < 0 {
		mistakes = append(mistakes, fmt.Errorf("max response: must be at least 1 byte, got %d", s.config.MaxResponse))
	}
	if s.config.MaxIdleConns < 0 {
		mistakes = append(mistakes, fmt.Errorf("max idle connections: must be at least 1, got %d", s.config.MaxIdleConns))
	}
	s.header.Set("Content-Type", "application/json")
	s.header.Set("User-Agent", s.config.UserAgent)
	return s, errors.Join(mistakes...)
}

func (s *settings) checkURL() error {
	if s.config.URL == "" {
		return errors.New("url: missing; it must be like http://127.0.0.1:3000/jobs")
	}
	target, err := url.Parse(s.config.URL)
	if err != nil {
		// The parser's own words would quote the URL, with its password.
		return errors.New("url: is not a URL; it must be like http://127.0.0.1:3000/jobs, " +
			"with % and a number for special characters in a user or password (%40 for @, %2F for /)")
	}
	if target.Scheme != "http" && target.Scheme != "https" || target.Hostname() == "" {
		return errors.New("url: must be absolute and begin with http:// or https:// and a host, like http://127.0.0.1:3000/jobs")
	}
	if strings.Contains(s.config.URL, "#") {
		return errors.New("url: must not have a fragment (#...), which is never sent to a server")
	}
	if port := target.Port(); port != "" {
		if number, err := strconv.Atoi(port); err != nil || number < 1 || number > 65535 {
			return fmt.Errorf("url: port %s is not between 1 and 65535", port)
		}
	}
	if user := target.User; user != nil {
		password, _ := user.Password()
		s.header.Set("Authorization", "Basic "+base64.StdEncoding.EncodeToString([]byte(user.Username()+":"+password)))
	}
	s.hide = newHide(s.config, target, s.header.Get("Authorization"))
	target.User = nil
	s.target = target
	return nil
}

func (s *settings) checkSecrets() error {
	var mistakes []error
	for i, secret := range s.config.Secrets {
		encoded, prefixed := strings.CutPrefix(strings.TrimSpace(secret), secretPrefix)
		key, err := base64.StdEncoding.DecodeString(encoded)
		if !prefixed || err != nil || len(key) < 24 || len(key) > 64 {
			mistakes = append(mistakes, fmt.Errorf("secret %d of %d: must be %s and the base64 of 24 to 64 random bytes; "+
				`one is made by: echo "%[3]s$(openssl rand -base64 32)"`, i+1, len(s.config.Secrets), secretPrefix))
			continue
		}
		s.keys = append(s.keys, key)
	}
	return errors.Join(mistakes...)
}

func (s *settings) checkHeaders() error {
	var mistakes []error
	for _, name := range slices.Sorted(maps.Keys(s.config.Headers)) {
		value, canonical := strings.TrimSpace(s.config.Headers[name]), http.CanonicalHeaderKey(name)
		switch {
		case !isHeaderName(name):
			mistakes = append(mistakes, fmt.Errorf("headers: %q is not a header's name; letters, digits and - make one", name))
		case !isHeaderValue(value):
			mistakes = append(mistakes, fmt.Errorf("headers: the value of %s must be one line without control characters", name))
		case isReserved(canonical):
			mistakes = append(mistakes, fmt.Errorf("headers: %s is set by pgbell itself and can't be changed", name))
		case canonical == "Authorization" && s.header.Get(canonical) != "":
			mistakes = append(mistakes, errors.New("headers: Authorization is set already by the user and password in the url; leave out one of them"))
		case s.header[canonical] != nil:
			mistakes = append(mistakes, fmt.Errorf("headers: %s is there twice; the case of letters makes no difference", name))
		default:
			s.header.Set(canonical, value)
		}
	}
	return errors.Join(mistakes...)
}

// isReserved reports whether the package, or HTTP/1.1 itself, sets a header.
func isReserved(canonical string) bool {
	switch canonical {
	case "Idempotency-Key", "Traceparent", "Content-Type", "User-Agent",
		"Accept-Encoding", "Connection", "Content-Encoding", "Content-Length", "Expect", "Host", "Keep-Alive", "Te", "Trailer",
		"Transfer-Encoding", "Upgrade":
		return true
	}
	return strings.HasPrefix(canonical, "Webhook-") || strings.HasPrefix(canonical, "X-Job-") || strings.HasPrefix(canonical, "Proxy-")
}

// isHeaderName reports whether name is a token by RFC 9110, section 5.6.2.
func isHeaderName(name string) bool {
	for _, c := range []byte(name) {
		if c <= ' ' || c >= 0x7f || strings.IndexByte(`"(),/:;<=>?@[\]{}`, c) >= 0 {
			return false
		}
	}
	return name != ""
}

// isHeaderValue reports whether value is a field value by RFC 9110, section 5.5.
func isHeaderValue(value string) bool {
	for _, c := range []byte(value) {
		if c < ' ' && c != '\t' || c == 0x7f {
			return false
		}
	}
	return true
}
