//go:build !race

package main

// raceFlag builds the program under test as the test itself is built.
const raceFlag = "-race=false"
