package webhook_test

import (
	"strings"
	"testing"

	"github.com/pgbell/pgbell/dispatch/webhook"
)

func TestNewRefuses(t *testing.T) {
	t.Parallel()
	const good = "http://127.0.0.1:3000/jobs"
	for name, test := range map[string]struct {
		config webhook.Config
		want   string
	}{
		"no url":             {webhook.Config{}, "url: missing"},
		"relative":           {webhook.Config{URL: "/jobs"}, "must be absolute"},
		"no scheme":          {webhook.Config{URL: "127.0.0.1:3000/jobs"}, "is not a URL"},
		"host as scheme":     {webhook.Config{URL: "app:3000/jobs"}, "must be absolute"},
		"other scheme":       {webhook.Config{URL: "ftp://app/jobs"}, "begin with http:// or https://"},
		"no host":            {webhook.Config{URL: "http:///jobs"}, "a host"},
		"only port":          {webhook.Config{URL: "http://:80/jobs"}, "a host"},
		"fragment":           {webhook.Config{URL: good + "#a"}, "fragment"},
		"empty fragment":     {webhook.Config{URL: good + "#"}, "fragment"},
		"port":               {webhook.Config{URL: "http://app:70000/"}, "port 70000"},
		"line break":         {webhook.Config{URL: good + "\n"}, "is not a URL"},
		"password":           {webhook.Config{URL: "http://bell:hunter2/x@app/"}, "is not a URL"},
		"secret not encoded": {webhook.Config{URL: good, Secrets: []string{"hunter2"}}, "openssl rand -base64 32"},
		"secret unprefixed":  {webhook.Config{URL: good, Secrets: []string{secret, secret[6:]}}, "secret 2 of 2"},
		"secret too short":   {webhook.Config{URL: good, Secrets: []string{"whsec_aHVudGVyMg=="}}, "24 to 64 random bytes"},
		"secret too long":    {webhook.Config{URL: good, Secrets: []string{"whsec_" + strings.Repeat("aaaa", 22)}}, "24 to 64 random bytes"},
		"secret empty":       {webhook.Config{URL: good, Secrets: []string{""}}, "secret 1 of 1"},
		"header name":        {webhook.Config{URL: good, Headers: map[string]string{"X Env": "a"}}, `"X Env" is not a header's name`},
		"header name empty":  {webhook.Config{URL: good, Headers: map[string]string{"": "a"}}, `"" is not a header's name`},
		"header value":       {webhook.Config{URL: good, Headers: map[string]string{"X-Env": "hunter2\r\nEvil: 1"}}, "value of X-Env"},
		"header reserved":    {webhook.Config{URL: good, Headers: map[string]string{"x-job-type": "a"}}, "x-job-type is set by pgbell"},
		"header host":        {webhook.Config{URL: good, Headers: map[string]string{"host": "a"}}, "host is set by pgbell"},
		"header twice":       {webhook.Config{URL: good, Headers: map[string]string{"X-Env": "a", "x-env": "b"}}, "is there twice"},
		"authorized twice": {webhook.Config{URL: "http://a:hunter2@app/", Headers: map[string]string{"authorization": "b"}},
			"Authorization is set already"},
		"user agent":   {webhook.Config{URL: good, UserAgent: "a\nb"}, "user agent"},
		"max response": {webhook.Config{URL: good, MaxResponse: -1}, "max response"},
		"max idle":     {webhook.Config{URL: good, MaxIdleConns: -1}, "max idle"},
	} {
		h, err := webhook.New(test.config)
		if err == nil || h != nil {
			t.Errorf("%s: accepted", name)
			continue
		}
		if !strings.Contains(err.Error(), test.want) {
			t.Errorf("%s: %q lacks %q", name, err, test.want)
		}
		if strings.Contains(err.Error(), "hunter2") || strings.Contains(err.Error(), secret[6:]) || strings.Contains(err.Error(), "aHVudGVyMg") {
			t.Errorf("%s: %q tells a secret", name, err)
		}
	}
}

func TestNewReportsAllMistakes(t *testing.T) {
	t.Parallel()
	_, err := webhook.New(webhook.Config{URL: "x", Secrets: []string{"a", "b"}, Headers: map[string]string{"Host": "h"}, MaxResponse: -1})
	if err == nil {
		t.Fatal("accepted")
	}
	for _, part := range []string{"url:", "secret 1 of 2", "secret 2 of 2", "headers: Host", "max response"} {
		if !strings.Contains(err.Error(), part) {
			t.Errorf("%q lacks %q", err, part)
		}
	}
}

func TestNewAccepts(t *testing.T) {
	t.Parallel()
	for _, config := range []webhook.Config{
		{URL: "http://127.0.0.1:3000"},
		{URL: "HTTPS://bell:secret@app.internal/jobs?x=1", Secrets: []string{secret}},
		{URL: "http://[::1]:8080/a%20b", Headers: map[string]string{"Authorization": "Bearer abc", "X-Empty": ""}},
		{URL: "http://app/", Secrets: []string{"whsec_" + strings.Repeat("aaaa", 21) + "aa==\n"}},
	} {
		h, err := webhook.New(config)
		if err != nil {
			t.Errorf("%s: %v", config.URL, err)
			continue
		}
		h.Close()
	}
}
