// Package config reads pgbell's configuration: one YAML file, the environment over it, flags over both.
//
// It promises:
//
//   - Nothing is guessed. An unknown key, a key given twice, a value of the wrong kind or out of range is a mistake, and
//     so is a variable that a ${NAME} names and that isn't set. All mistakes are reported together, each by the name
//     that the operator typed: file, line and column with the line itself, the variable, or the flag.
//   - Every scalar key outside handlers has one environment variable: PGBELL_ and the key's path in capitals, such as
//     PGBELL_HTTP_ADDR for http.addr. DATABASE_URL, PGBELL_LISTEN_URL and PGBELL_SCHEMA are aliases of
//     PGBELL_DATABASE_URL, PGBELL_DATABASE_LISTEN_URL and PGBELL_DATABASE_SCHEMA. An empty variable counts as unset. The
//     URLs can also be read from a file that the variable with _FILE at its end names.
//   - ${NAME} inside a string value of the file is the variable's value; $$ is a dollar sign; any other dollar sign is
//     itself. What a variable holds is never parsed as YAML.
//   - Secrets and passwords are in no error, no snippet and no Setting.
//   - Whatever the file holds, reading it ends soon and never panics.
package config
