package migrations

// Fill puts a schema's names into a template.
func Fill(schema, template string) string {
	i, _ := Config{Schema: schema}.installation()
	return i.fill(template)
}
