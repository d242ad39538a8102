package main

// sidecarGoals are those of pgbell alone.
func sidecarGoals() []goal { return nil }
