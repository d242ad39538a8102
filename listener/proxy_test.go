package listener_test

import (
	"testing"

	"github.com/pgbell/pgbell/internal/proxy"
)

type proxyServer = proxy.Proxy

const bothWays = proxy.Both

// startProxy returns a proxy in front of a database, and the database's URL through it.
func startProxy(t *testing.T, databaseURL string) (*proxyServer, string) {
	t.Helper()
	p, through, err := proxy.InFrontOf(t.Context(), databaseURL)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = p.Close() }) // of no consequence to what was tested
	return p, through
}
