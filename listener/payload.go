package listener

import "strings"

type payload int

const (
	payloadUnknown payload = iota
	payloadRing
	payloadCancel
	payloadCanary
)

const (
	cancelPayload = "cancel"
	canaryPrefix  = "canary:"
	maxNonce      = 64
)

// parsePayload tells what a notification says, and the nonce of a canary.
func parsePayload(text string) (payload, string) {
	switch text {
	case "":
		return payloadRing, ""
	case cancelPayload:
		return payloadCancel, ""
	}
	nonce, found := strings.CutPrefix(text, canaryPrefix)
	if !found || nonce == "" || len(nonce) > maxNonce || strings.ContainsFunc(nonce, notAlphanumeric) {
		return payloadUnknown, ""
	}
	return payloadCanary, nonce
}

func notAlphanumeric(r rune) bool {
	return (r < '0' || r > '9') && (r < 'A' || r > 'Z') && (r < 'a' || r > 'z')
}
