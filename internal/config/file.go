package config

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/goccy/go-yaml/ast"
)

// field reads the value of one key.
type field struct {
	name string
	read func(path string, value ast.Node)
}

// file reads the top level.
func (r *reader) file(root ast.Node, databaseOnly bool) {
	var fields []field
	groups := map[string][]field{}
	for i := range settings {
		setting := &settings[i]
		scalar := func(path string, value ast.Node) { r.scalar(path, value, setting.target(r.config), setting.secret) }
		group, name, nested := strings.Cut(setting.key, ".")
		if !nested {
			fields = append(fields, field{setting.key, scalar})
			continue
		}
		if groups[group] == nil {
			fields = append(fields, field{group, func(path string, value ast.Node) { r.fields(path, value, groups[group]) }})
		}
		groups[group] = append(groups[group], field{name, scalar})
	}
	fields = append(fields, field{"handlers", func(_ string, value ast.Node) {
		if !databaseOnly {
			r.handlers(value)
		}
	}})
	r.fields("", root, fields)
}

// fields reads a mapping with known keys.
func (r *reader) fields(path string, node ast.Node, fields []field) {
	for _, entry := range r.mapping(node, path) {
		i := slices.IndexFunc(fields, func(f field) bool { return f.name == entry.name })
		if i < 0 {
			r.unknown(path, entry, fields)
			continue
		}
		fields[i].read(join(path, entry.name), entry.value)
	}
}

func (r *reader) unknown(path string, entry entry, fields []field) {
	var names []string
	for _, field := range fields {
		names = append(names, field.name)
	}
	var hint string
	if near := nearest(entry.name, names); near != "" {
		hint = fmt.Sprintf("did you mean %q?", near)
	} else if elsewhere := moved(entry.name); elsewhere != "" {
		hint = "did you mean " + elsewhere + "?"
	} else {
		slices.Sort(names)
		hint = "the keys here are " + strings.Join(names, ", ")
	}
	message := "unknown key " + quote(entry.name)
	if path != "" {
		message += " in " + path
	}
	r.mistake(entry.key, message, hint)
}

// moved finds a key that has this name in another place.
func moved(name string) string {
	for i := range settings {
		if strings.HasSuffix(settings[i].key, "."+name) {
			return settings[i].key
		}
	}
	return ""
}

// join a path and a name; a name that could be mistaken for a path is quoted.
func join(path, name string) string {
	if strings.ContainsFunc(name, func(r rune) bool { return r <= ' ' || r == '.' || r == '"' || r == 0x7f || r > 0x7f && !isLetter(r) }) || name == "" {
		name = quote(name)
	}
	if path == "" {
		return name
	}
	return path + "." + name
}

// scalar reads one value and notes where it came from.
func (r *reader) scalar(path string, node ast.Node, target any, secret bool) bool {
	text, ok := r.text(path, node, target, secret)
	if !ok {
		return false
	}
	if err := set(target, text); err != nil {
		r.mistakeIn(node, secret, path+": "+err.Error(), err)
		return false
	}
	r.note(path, node, secret)
	return true
}

// note where the value of a key stands.
func (r *reader) note(path string, node ast.Node, secret bool) {
	line, column := position(node)
	shown := ""
	if !secret {
		shown = snippet(r.lines, line, column)
	}
	r.config.places[path] = place{line, column, shown}
	r.config.origins[path] = Origin{SourceFile, fmt.Sprintf("%s:%d:%d", r.where, line, column)}
}

// text of a scalar that fits the target, with its variables expanded.
func (r *reader) text(path string, node ast.Node, target any, secret bool) (string, bool) {
	resolved := r.resolve(node)
	text, literal := "", false
	switch typed := resolved.(type) {
	case nil:
		// Told by resolve, but for a value that the parser left out.
		if node == nil {
			r.mistakeAt(1, 1, path+" has no value", "")
		}
		return "", false
	case *ast.NullNode:
		r.mistakeIn(node, secret, path+" has no value", &hinted{"", "give it one, or take the key out: then the default holds"})
		return "", false
	case *ast.StringNode:
		text, literal = typed.Value, true
	case *ast.LiteralNode:
		text, literal = strings.TrimSuffix(typed.Value.Value, "\n"), true
	case *ast.IntegerNode, *ast.FloatNode, *ast.BoolNode:
		text = resolved.GetToken().Value
	}
	if want := wanted(target, resolved, text); want != "" {
		r.mistakeIn(node, secret, fmt.Sprintf("%s must be %s, not %s", path, want, kindOf(resolved)), nil)
		return "", false
	}
	if !literal {
		return text, true
	}
	expanded, err := expand(text, r.environ)
	if err != nil {
		r.mistakeIn(node, secret, path+": "+err.Error(), err)
		return "", false
	}
	return expanded, true
}

// wanted says which kind of value the target takes, if the node is of another.
func wanted(target any, node ast.Node, text string) string {
	_, isString := node.(*ast.StringNode)
	_, isBlock := node.(*ast.LiteralNode)
	_, isInteger := node.(*ast.IntegerNode)
	_, isFloat := node.(*ast.FloatNode)
	variables := isString && strings.Contains(text, "${")
	switch target.(type) {
	case *string:
		if !isString && !isBlock {
			return "text (put it in quotes)"
		}
	case *int:
		if !isInteger && !variables {
			return "a whole number"
		}
	case *bool:
		if _, isBool := node.(*ast.BoolNode); !isBool && !variables {
			return "true or false"
		}
	case *float64:
		if !isInteger && !isFloat && !variables {
			return "a number"
		}
	case *time.Duration, *retention:
		// A number passes: what it lacks is a unit, and set says so.
		if !isString && !isInteger && !isFloat {
			return "a duration such as 15s"
		}
	case *size:
		if !isString && !isInteger {
			return "a size such as 4MiB"
		}
	}
	return ""
}
