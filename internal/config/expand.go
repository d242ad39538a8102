package config

import (
	"fmt"
	"strings"
)

// expand replaces ${NAME} by the variable's value and $$ by $; any other dollar sign stands for itself. It names all
// variables that aren't set.
func expand(text string, environ map[string]string) (string, error) {
	if !strings.Contains(text, "$") {
		return text, nil
	}
	var out strings.Builder
	var unset []string
	for {
		before, after, ok := strings.Cut(text, "$")
		out.WriteString(before)
		if !ok {
			break
		}
		switch {
		case strings.HasPrefix(after, "$"):
			out.WriteByte('$')
			text = after[1:]
		case strings.HasPrefix(after, "{"):
			name, rest, closed := strings.Cut(after[1:], "}")
			if !closed {
				return "", &hinted{"${ has no closing }", "write ${NAME}, or $${ for the characters themselves"}
			}
			if !isVariable(name) {
				return "", &hinted{fmt.Sprintf("${%s} doesn't name a variable", strings.Trim(quote(name), `"`)),
					"write ${NAME}, or $${ for the characters themselves"}
			}
			value, set := environ[name]
			if !set {
				unset = append(unset, name)
			}
			out.WriteString(value)
			text = rest
		default:
			out.WriteByte('$')
			text = after
		}
	}
	if len(unset) > 0 {
		return "", &hinted{"the variable " + strings.Join(unset, ", ") + " is not set", "set it, or write $${ for the characters ${ themselves"}
	}
	return out.String(), nil
}

func isVariable(name string) bool {
	for i, r := range name {
		if r != '_' && (r < 'A' || r > 'Z') && (r < 'a' || r > 'z') && (i == 0 || r < '0' || r > '9') {
			return false
		}
	}
	return name != ""
}
