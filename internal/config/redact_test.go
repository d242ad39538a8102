package config_test

import (
	"net/url"
	"strings"
	"testing"

	"github.com/pgbell/pgbell/internal/config"
)

func TestRedact(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]string{
		"": "",
		"postgres://u:p@h:5432/d?sslmode=require":      "postgres://u:***@h:5432/d?sslmode=require",
		"postgres://u:p%40x@h/d?password=p&port=1":     "postgres://u:***@h/d?password=***&port=1",
		"postgres://u@h/d":                             "postgres://u@h/d",
		"postgres://u:a/b@h/d":                         "***",
		"postgres://u:12/hush@h/d":                     "***",
		"postgres://u:12?hush@h/d":                     "***",
		"postgres://u:12#hush@h/d":                     "***",
		"postgres://u:a@hush@h/d":                      "***",
		"postgres://h/d?port=1;password=hush":          "postgres://h/d?port=***",
		"postgres://h/d?password=a&hush=b&hush":        "postgres://h/d?password=***&***&***",
		"host=h password='a b\\' c' user=u":            "host=h password=*** user=u",
		"host=h password = hush  dbname=d":             "host=h password=*** dbname=d",
		"host=h password=voilà-hush dbname=d":          "host=h password=*** dbname=d",
		"host=h password=two hush dbname=d":            "host=h password=*** ***",
		"host= password=hush dbname=d":                 "host=*** dbname=d",
		"host=/tmp password=a://hush dbname=d":         "host=/tmp password=*** dbname=d",
		"host=h options='-c role=x' sslpassword=hush":  "host=h ***",
		"user=u target_session_attrs=any password=a=b": "user=u target_session_attrs=any password=***",
		"hush":                   "***",
		"http://u:p@h/x?token=y": "http://u:***@h/x?token=***",
		"https://h/x?hush":       "https://h/x?***",
	} {
		if got := config.Redact(text); got != want {
			t.Errorf("%s is shown as %s, want %s", text, got, want)
		}
	}
}

// Whatever a password looks like, and however it was put into a connection string, the mark in the middle of it never comes out.
func FuzzRedact(f *testing.F) {
	for _, seed := range []string{"", "@", "/", "12/", "12?", "12#", "à", " ", "a b=", "'", "\\", "\\'", "://", "a://", "&x=", ";", "%", "%40", "\x00", "\u2028", "]"} {
		f.Add(seed, "")
		f.Add(seed, seed)
		f.Add("x", seed)
	}
	f.Fuzz(func(t *testing.T, before, after string) {
		const mark = "HUSHHUSH"
		secret := before + mark + after
		keyword := strings.NewReplacer(`\`, `\\`, `'`, `\'`).Replace(secret)
		forms := []string{
			"postgres://" + url.UserPassword("u", secret).String() + "@h/d",
			"postgresql://h:1/d?user=u&password=" + url.QueryEscape(secret) + "&sslmode=disable",
			"https://" + url.UserPassword("u", secret).String() + "@h/x?y=z",
			"https://h/x?token=" + url.QueryEscape(secret),
			"host=/tmp password='" + keyword + "' dbname=d",
		}
		// As it is, by people who don't know that it has to be escaped. With a = in it, it may read as a harmless setting.
		sloppy := []string{
			"postgres://u:" + secret + "@h/d?port=1",
			"postgres://u:1" + secret + "@h/d?port=1",
			"postgres://h/d?password=" + secret,
			"postgres://h/d?password=" + secret + "&port=1",
			"host=h password=" + secret + " dbname=d",
			"host=/tmp password='" + secret + "' dbname=d",
			"host= password=" + secret,
		}
		if !strings.Contains(before, "=") {
			forms = append(forms, sloppy...)
		}
		for _, text := range forms {
			if shown := config.Redact(text); strings.Contains(shown, mark) {
				t.Errorf("%q is shown as %q", text, shown)
			}
		}
	})
}
