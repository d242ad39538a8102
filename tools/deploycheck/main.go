// Command deploycheck reads deployment files as strictly as the programs that they are for, without an engine or cluster:
//
//	deploycheck compose FILE      by the Compose specification's schema and rules, with the environment's variables
//	deploycheck kubernetes FILE   each document into the type of its kind: unknown, repeated or mistyped fields are errors
package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"

	"github.com/compose-spec/compose-go/v2/cli"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/serializer/json"
	"k8s.io/apimachinery/pkg/util/yaml"
)

func main() {
	if len(os.Args) != 3 {
		fmt.Fprintln(os.Stderr, "usage: deploycheck compose|kubernetes FILE")
		os.Exit(2)
	}
	check, ok := map[string]func(string) ([]string, error){"compose": compose, "kubernetes": kubernetes}[os.Args[1]]
	if !ok {
		fmt.Fprintf(os.Stderr, "error: %s is neither compose nor kubernetes\n", os.Args[1])
		os.Exit(2)
	}
	found, err := check(os.Args[2])
	if err != nil {
		fmt.Fprintf(os.Stderr, "error: %s: %v\n", os.Args[2], err)
		os.Exit(1)
	}
	for _, name := range found {
		fmt.Println(name)
	}
}

// compose returns the services.
func compose(path string) ([]string, error) {
	ctx := context.Background()
	options, err := cli.NewProjectOptions([]string{path}, cli.WithOsEnv, cli.WithConsistency(true), cli.WithName("pgbell"))
	if err != nil {
		return nil, err
	}
	project, err := options.LoadProject(ctx)
	if err != nil {
		return nil, err
	}
	var found []string
	for _, name := range project.ServiceNames() {
		found = append(found, "service "+name)
	}
	return found, nil
}

// kubernetes returns the objects.
func kubernetes(path string) ([]string, error) {
	scheme := runtime.NewScheme()
	if err := errors.Join(corev1.AddToScheme(scheme), appsv1.AddToScheme(scheme)); err != nil {
		return nil, err
	}
	strict := json.NewSerializerWithOptions(json.DefaultMetaFactory, scheme, scheme, json.SerializerOptions{Yaml: true, Strict: true})
	text, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	documents := yaml.NewDocumentDecoder(io.NopCloser(bytes.NewReader(text)))
	var found []string
	for {
		buffer := make([]byte, len(text))
		n, err := documents.Read(buffer)
		if errors.Is(err, io.EOF) {
			return found, nil
		}
		if err != nil {
			return nil, err
		}
		_, kind, err := strict.Decode(buffer[:n], nil, nil)
		if err != nil {
			return nil, err
		}
		found = append(found, kind.Kind)
	}
}
