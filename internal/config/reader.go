package config

import (
	"errors"
	"fmt"
	"strings"
	"unicode/utf8"

	"github.com/goccy/go-yaml"
	"github.com/goccy/go-yaml/ast"
	"github.com/goccy/go-yaml/lexer"
	"github.com/goccy/go-yaml/parser"
	"github.com/goccy/go-yaml/token"
)

// maxDepth of brackets, and of dashes in one line. A configuration needs 5; the YAML parser takes time that grows with
// the square of it.
const maxDepth = 32

// maxAliases that are followed in one file: few aliases of aliases can mean more nodes than there are atoms.
const maxAliases = 10_000

// reader walks the nodes of one file and gathers what is wrong.
type reader struct {
	config   *Config
	where    string
	lines    []string
	environ  map[string]string
	anchors  map[string]ast.Node
	aliases  int // followed so far
	mistakes Mistakes
}

// place of a value in the file.
type place struct {
	line, column int
	snippet      string
}

func parse(config *Config, text []byte, where string, environ map[string]string, databaseOnly bool) Mistakes {
	source := strings.TrimPrefix(strings.ReplaceAll(string(text), "\r\n", "\n"), "\ufeff")
	r := &reader{config: config, where: where, lines: strings.Split(source, "\n"), environ: environ, anchors: map[string]ast.Node{}}
	if root := r.root(source); root != nil {
		r.file(root, databaseOnly)
	}
	return r.mistakes
}

// root returns the file's one document, or nil if it is empty or not YAML.
func (r *reader) root(source string) ast.Node {
	for i, line := range r.lines {
		if !utf8.ValidString(line) {
			r.mistakeAt(i+1, 1, "the line is not UTF-8 text", "")
			return nil
		}
		if column := strings.IndexFunc(line, isControl); column >= 0 {
			r.mistakeAt(i+1, utf8.RuneCountInString(line[:column])+1, "a control character", "")
			return nil
		}
	}
	file, err := parseYAML(source)
	if err != nil {
		r.syntax(err)
		return nil
	}
	var root ast.Node
	for _, document := range file.Docs {
		switch {
		case document.Body == nil || document.Body.Type() == ast.NullType:
		case root == nil:
			root = document.Body
		default:
			r.mistake(document.Body, "a second document: one file holds one configuration", "")
			return nil
		}
	}
	return root
}

func isControl(r rune) bool { return r < ' ' && r != '\t' || r == 0x7f }

// parseYAML survives what the YAML library doesn't: its panics are mistakes of the file too.
func parseYAML(source string) (file *ast.File, err error) {
	defer func() {
		if recover() != nil {
			file, err = nil, errors.New("this is not YAML")
		}
	}()
	tokens := lexer.Tokenize(source)
	depth, dashes, line := 0, 0, 0
	for _, each := range tokens {
		switch each.Type {
		case token.MappingStartType, token.SequenceStartType:
			depth++
		case token.MappingEndType, token.SequenceEndType:
			depth--
		case token.SequenceEntryType, token.MappingKeyType:
			if each.Position.Line != line {
				dashes, line = 0, each.Position.Line
			}
			dashes++
		}
		if depth > maxDepth || dashes > maxDepth || each.Position.IndentLevel > maxDepth {
			return nil, &yaml.SyntaxError{Message: "nested too deep", Token: each}
		}
	}
	return parser.Parse(tokens, 0, parser.AllowDuplicateMapKey())
}

func (r *reader) syntax(err error) {
	var syntax *yaml.SyntaxError
	if !errors.As(err, &syntax) || syntax.Token == nil || syntax.Token.Position == nil {
		r.mistakes = append(r.mistakes, Mistake{Where: r.where, Message: mask(firstLine(err.Error())), line: 1})
		return
	}
	position, hint := syntax.Token.Position, ""
	if position.Line >= 1 && position.Line <= len(r.lines) {
		line := strings.TrimSpace(r.lines[position.Line-1])
		switch {
		case strings.HasPrefix(line, "*"):
			hint = `quote the star: "*":`
		case strings.HasPrefix(r.lines[position.Line-1], "\t"):
			hint = "indent with spaces, not with tabs"
		case strings.Contains(line, "${"):
			hint = "within { } and [ ], put text that holds ${...} in quotes"
		}
	}
	r.mistakeAt(position.Line, position.Column, "not YAML: "+mask(firstLine(syntax.Message)), hint)
}

func firstLine(text string) string {
	line, _, _ := strings.Cut(text, "\n")
	return line
}

func (r *reader) mistake(node ast.Node, message, hint string) {
	line, column := position(node)
	r.mistakeAt(line, column, message, hint)
}

func (r *reader) mistakeAt(line, column int, message, hint string) {
	shown := ""
	if len(r.mistakes) < maxMistakes {
		shown = snippet(r.lines, line, column)
	}
	r.mistakes = append(r.mistakes, Mistake{
		Where: fmt.Sprintf("%s:%d:%d", r.where, line, column), Message: message, Snippet: shown,
		Hint: hint, line: line, column: column,
	})
}

// mistakeIn is a mistake about a value that is secret: its line is not shown.
func (r *reader) mistakeIn(node ast.Node, secret bool, message string, err error) {
	hint := ""
	var hinting *hinted
	if errors.As(err, &hinting) {
		hint = hinting.hint
	}
	r.mistake(node, message, hint)
	if secret {
		r.mistakes[len(r.mistakes)-1].Snippet = ""
	}
}

// position of a node: of a mapping, that of its first key.
func position(node ast.Node) (line, column int) {
	switch typed := node.(type) {
	case *ast.MappingNode:
		if len(typed.Values) > 0 && !typed.IsFlowStyle {
			return position(typed.Values[0].Key)
		}
	case *ast.MappingValueNode:
		return position(typed.Key)
	}
	if node == nil || node.GetToken() == nil || node.GetToken().Position == nil {
		return 1, 1
	}
	return node.GetToken().Position.Line, node.GetToken().Position.Column
}

// resolve follows anchors and aliases. It returns nil, with a mistake, for what can't be a value.
func (r *reader) resolve(node ast.Node) ast.Node {
	for range maxDepth {
		switch typed := node.(type) {
		case *ast.AnchorNode:
			if typed.Name != nil && typed.Name.GetToken() != nil {
				r.anchors[typed.Name.GetToken().Value] = typed.Value
			}
			node = typed.Value
		case *ast.AliasNode:
			name := ""
			if typed.Value != nil && typed.Value.GetToken() != nil {
				name = typed.Value.GetToken().Value
			}
			target, ok := r.anchors[name]
			if !ok {
				r.mistake(node, fmt.Sprintf("the alias *%s has no anchor &%[1]s before it", name), `a star alone must be quoted: "*"`)
				return nil
			}
			if r.aliases++; r.aliases > maxAliases {
				if r.aliases == maxAliases+1 {
					r.mistake(node, "too many aliases", "")
				}
				return nil
			}
			node = target
		case *ast.TagNode:
			r.mistake(node, "tags have no meaning here", "")
			return nil
		case nil:
			return nil
		default:
			return node
		}
	}
	r.mistake(node, "an alias that means itself", "")
	return nil
}

// entry of a mapping.
type entry struct {
	name  string
	key   ast.Node
	value ast.Node
}

// mapping returns the entries of a mapping, merged ones last, and nothing for an empty value. Path is for mistakes.
func (r *reader) mapping(node ast.Node, path string) []entry {
	return r.mappingAt(node, path, 0)
}

func (r *reader) mappingAt(node ast.Node, path string, depth int) []entry {
	resolved := r.resolve(node)
	var values []*ast.MappingValueNode
	switch typed := resolved.(type) {
	case nil, *ast.NullNode:
		return nil
	case *ast.MappingNode:
		values = typed.Values
	case *ast.MappingValueNode:
		values = []*ast.MappingValueNode{typed}
	default:
		r.mistake(node, fmt.Sprintf("%s must be a mapping, not %s", orFile(path), kindOf(resolved)), "")
		return nil
	}
	if depth > maxDepth {
		r.mistake(node, "an alias that means itself", "")
		return nil
	}
	var entries, merged []entry
	seen := map[string]int{}
	for _, value := range values {
		if value.Key.IsMergeKey() {
			merged = append(merged, r.merge(value.Value, path, depth+1)...)
			continue
		}
		name, ok := keyName(value.Key)
		if !ok {
			r.mistake(value.Key, "a key must be plain text", "")
			continue
		}
		if i, twice := seen[name]; twice {
			line, _ := position(entries[i].key)
			r.mistake(value.Key, fmt.Sprintf("the key %s is given twice: first in line %d", quote(name), line), "")
			continue
		}
		seen[name] = len(entries)
		entries = append(entries, entry{name, value.Key, value.Value})
	}
	for _, each := range merged {
		if _, own := seen[each.name]; !own {
			seen[each.name] = len(entries)
			entries = append(entries, each)
		}
	}
	return entries
}

// merge reads what stands after "<<:", a mapping or a list of mappings.
func (r *reader) merge(node ast.Node, path string, depth int) []entry {
	list, ok := r.resolve(node).(*ast.SequenceNode)
	if !ok {
		return r.mappingAt(node, path, depth)
	}
	var entries []entry
	for _, each := range list.Values {
		entries = append(entries, r.mappingAt(each, path, depth)...)
	}
	return entries
}

func keyName(node ast.Node) (string, bool) {
	switch typed := node.(type) {
	case *ast.StringNode:
		return typed.Value, true
	case *ast.IntegerNode, *ast.FloatNode, *ast.BoolNode, *ast.NullNode:
		return node.GetToken().Value, true
	}
	return "", false
}

func orFile(path string) string {
	if path == "" {
		return "the file"
	}
	return path
}

func kindOf(node ast.Node) string {
	switch node.(type) {
	case *ast.StringNode, *ast.LiteralNode:
		return "text"
	case *ast.IntegerNode, *ast.FloatNode, *ast.InfinityNode, *ast.NanNode:
		return "a number"
	case *ast.BoolNode:
		return "true or false"
	case *ast.SequenceNode:
		return "a list"
	case *ast.MappingNode, *ast.MappingValueNode:
		return "a mapping"
	case *ast.NullNode:
		return "nothing"
	}
	return "something else"
}
