package dispatch

import (
	"cmp"
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"time"
)

// Backoff is the delay before attempt n+1: Base x Factor^(n-1), at most Cap, spread by Jitter.
type Backoff struct {
	// Base is the delay after the first attempt. Defaults to 30 s.
	Base time.Duration
	// Factor by which it grows, at least 1. Defaults to 4.
	Factor float64
	// Cap is the longest delay. Defaults to 24 h.
	Cap time.Duration
	// Jitter spreads the delay evenly over ±Jitter of itself, 0 to 1; negative means none. Defaults to 0.1.
	Jitter float64
}

func (b *Backoff) fill() error {
	var mistakes []error
	if b.Base < 0 || b.Cap < 0 {
		mistakes = append(mistakes, errors.New("backoff: base and cap must not be negative"))
	}
	b.Base = cmp.Or(b.Base, 30*time.Second)
	b.Factor = cmp.Or(b.Factor, 4)
	b.Cap = cmp.Or(b.Cap, 24*time.Hour)
	b.Jitter = cmp.Or(b.Jitter, 0.1)
	if !(b.Factor >= 1) || math.IsInf(b.Factor, 0) {
		mistakes = append(mistakes, fmt.Errorf("backoff: factor must be at least 1, got %v", b.Factor))
	}
	if !(b.Jitter <= 1) {
		mistakes = append(mistakes, fmt.Errorf("backoff: jitter must be at most 1, got %v", b.Jitter))
	}
	return errors.Join(mistakes...)
}

// delay before the attempt after the given one, which counts from 1.
func (b Backoff) delay(attempt int) time.Duration {
	delay := min(float64(b.Base)*math.Pow(b.Factor, float64(max(attempt, 1)-1)), float64(b.Cap))
	if b.Jitter > 0 {
		delay *= 1 + b.Jitter*(2*rand.Float64()-1)
	}
	return time.Duration(delay)
}
