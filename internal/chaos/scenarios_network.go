package chaos

import (
	"context"
	"fmt"
	"time"

	"github.com/pgbell/pgbell/internal/proxy"
)

var networkScenarios = []Scenario{
	{
		Name: "cut", Title: "the network between a sidecar and Postgres is cut in both directions", Mixed: true,
		Prepare: putProxies,
		Strike:  func(ctx context.Context, w *World) error { return cutOff(ctx, w, proxy.Both) },
		Allowed: Allowed{Recovery: leaseTime + 5*time.Second, Late: leaseTime + 7*time.Second},
	},
	{
		Name: "cut1", Title: "the network between a sidecar and Postgres is cut in one direction", Mixed: true,
		Prepare: putProxies,
		Strike: func(ctx context.Context, w *World) error {
			return cutOff(ctx, w, []proxy.Direction{proxy.ToServer, proxy.ToClient}[w.Random.IntN(2)])
		},
		// What is claimed by a statement whose answer is lost begins its lease then.
		Allowed: Allowed{Recovery: leaseTime + 5*time.Second, Late: leaseTime + 7*time.Second},
	},
	{
		Name: "reset", Title: "a sidecar's connections are reset, new ones refused for a while", Mixed: true,
		Prepare: putProxies, Strike: refuse, Pause: [2]time.Duration{time.Second, 4 * time.Second},
		Allowed: Allowed{Recovery: leaseTime + 5*time.Second},
	},
	{
		Name: "latency", Title: "latency and jitter of 200 ms between sidecars and Postgres", Mixed: true,
		Prepare: putProxies, Strike: slowDown, Pause: [2]time.Duration{time.Second, 4 * time.Second},
		Allowed: Allowed{Late: 10 * time.Second},
	},
}

// putProxies puts one in front of the database for each sidecar.
func putProxies(ctx context.Context, w *World) error {
	if w.Proxies != nil {
		return nil
	}
	var urls []string
	for range w.Scenario.Sidecars {
		p, url, err := proxy.InFrontOf(ctx, w.URL())
		if err != nil {
			return err
		}
		w.AtEnd(p.Close)
		w.Proxies, urls = append(w.Proxies, p), append(urls, url)
	}
	w.Route = func(sidecar int) string { return urls[sidecar] }
	return nil
}

// cutOff cuts one sidecar off: mostly for so long that others take over, the first time always, and sometimes for less than its lease.
func cutOff(ctx context.Context, w *World, direction proxy.Direction) error {
	i := w.Random.IntN(len(w.Sidecars))
	long := w.Between(leaseTime+6*time.Second, leaseTime+10*time.Second)
	if w.Random.IntN(3) == 0 && w.struck() > 0 {
		long = w.Between(time.Second, leaseTime/2)
	}
	name := map[proxy.Direction]string{proxy.Both: "cut", proxy.ToServer: "cut towards Postgres", proxy.ToClient: "cut towards the sidecar"}[direction]
	fault := Fault{What: fmt.Sprintf("network %s for %s", name, long.Round(time.Second)), Whom: []string{w.Sidecars[i].Name()}, Aftermath: comeBack}
	return w.hold(ctx, fault, func() error { w.Proxies[i].Cut(direction); return nil }, long,
		func() error { w.Proxies[i].Heal(); return nil })
}

// refuse resets connections once, which is no reason to take anybody for dead, or refuses new ones, too, for a while.
func refuse(ctx context.Context, w *World) error {
	i := w.Random.IntN(len(w.Sidecars))
	whom := []string{w.Sidecars[i].Name()}
	if w.Random.IntN(2) == 0 {
		return w.hold(ctx, Fault{What: "connections reset", Whom: whom, Harmless: true}, func() error { w.Proxies[i].Reset(); return nil }, 0, nothing)
	}
	return w.hold(ctx, Fault{What: "connections refused", Whom: whom, Aftermath: comeBack}, func() error { w.Proxies[i].Refuse(); return nil },
		w.Between(500*time.Millisecond, 8*time.Second), func() error { w.Proxies[i].Mend(); return nil })
}

// slowDown delays all sidecars: a round trip takes 200 to 400 ms.
func slowDown(ctx context.Context, w *World) error {
	delay := func(latency, jitter time.Duration) error {
		for _, p := range w.Proxies {
			p.Delay(latency, jitter)
		}
		return nil
	}
	return w.hold(ctx, Fault{What: "latency", Harmless: true}, func() error { return delay(100*time.Millisecond, 100*time.Millisecond) },
		w.Between(5*time.Second, 15*time.Second), func() error { return delay(0, 0) })
}
