package listener

import (
	"strings"
	"testing"
)

func TestPayload(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]struct {
		kind  payload
		nonce string
	}{
		"":                                  {payloadRing, ""},
		"cancel":                            {payloadCancel, ""},
		"canary:AZaz09":                     {payloadCanary, "AZaz09"},
		"canary:" + strings.Repeat("a", 64): {payloadCanary, strings.Repeat("a", 64)},
		"canary:" + strings.Repeat("a", 65): {payloadUnknown, ""},
		"canary:":                           {payloadUnknown, ""},
		"canary":                            {payloadUnknown, ""},
		"canary:a b":                        {payloadUnknown, ""},
		"canary:\xff":                       {payloadUnknown, ""},
		"Cancel":                            {payloadUnknown, ""},
		"cancel ":                           {payloadUnknown, ""},
		" ":                                 {payloadUnknown, ""},
		`{"id":1}`:                          {payloadUnknown, ""},
		"canary:" + strings.Repeat("é", 10): {payloadUnknown, ""},
		"canary:canary:" + strings.Repeat("a", 3): {payloadUnknown, ""},
	} {
		if kind, nonce := parsePayload(text); kind != want.kind || nonce != want.nonce {
			t.Errorf("parsePayload(%q) = %d, %q, want %d, %q", text, kind, nonce, want.kind, want.nonce)
		}
	}
}

// FuzzPayload: whatever others send is either of the protocol, and then spelled in one way only, or unknown.
func FuzzPayload(f *testing.F) {
	for _, seed := range []string{"", "cancel", "canary:", "canary:abc", "canary:\x00", "canary:" + strings.Repeat("x", 100), "ring"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, text string) {
		kind, nonce := parsePayload(text)
		var spelled string
		switch kind {
		case payloadRing:
		case payloadCancel:
			spelled = cancelPayload
		case payloadCanary:
			spelled = canaryPrefix + nonce
			if len(nonce) == 0 || len(nonce) > maxNonce {
				t.Errorf("nonce of %d bytes", len(nonce))
			}
		default:
			if nonce != "" {
				t.Errorf("an unknown payload has the nonce %q", nonce)
			}
			return
		}
		if spelled != text {
			t.Errorf("%q was taken for %q", text, spelled)
		}
	})
}
