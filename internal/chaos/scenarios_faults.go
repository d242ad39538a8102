package chaos

// faultScenarios are those of the network and of Postgres.
var faultScenarios []Scenario
