package main

import (
	"fmt"
	"image/color"
	"math"
	"path/filepath"
	"slices"

	"gonum.org/v1/plot"
	"gonum.org/v1/plot/plotter"
	"gonum.org/v1/plot/vg"
)

// plot writes a bar chart of each scenario's first figure.
func (r results) plot(folder string) error {
	for _, report := range r.Scenarios {
		if err := report.plot(filepath.Join(folder, report.Scenario+".svg")); err != nil {
			return fmt.Errorf("plot %s: %w", report.Scenario, err)
		}
	}
	return nil
}

var colours = map[role]color.Color{
	ours:  color.RGBA{R: 0x1f, G: 0x77, B: 0xb4, A: 0xff},
	floor: color.RGBA{R: 0xb0, G: 0xb0, B: 0xb0, A: 0xff},
	aside: color.RGBA{R: 0x9e, G: 0xc7, B: 0xe6, A: 0xff},
	peer:  color.RGBA{R: 0xd9, G: 0x8c, B: 0x3f, A: 0xff},
}

func (r report) plot(path string) error {
	figure, p := r.Figures[0], plot.New()
	p.BackgroundColor = color.White
	p.Title.Text = fmt.Sprintf("%s: %s, median of the rounds", r.Scenario, figure.Unit)
	p.Title.Padding, p.X.Min = vg.Points(6), 0
	var names []string
	for _, system := range slices.Backward(r.Systems) { // the first on top
		s, ok := system.spread(figure.Name)
		if !ok || math.IsNaN(s.median) {
			continue
		}
		bar, err := plotter.NewBarChart(plotter.Values{s.median}, vg.Points(14))
		if err != nil {
			return err
		}
		at := float64(len(names))
		bar.Horizontal, bar.XMin, bar.Color, bar.LineStyle.Width = true, at, colours[system.Role], 0
		label, err := plotter.NewLabels(plotter.XYLabels{
			XYs: []plotter.XY{{X: s.median, Y: at - 0.15}}, Labels: []string{fmt.Sprintf(" %.*f", figure.Digits, s.median)},
		})
		if err != nil {
			return err
		}
		p.Add(bar, label)
		names = append(names, system.Name)
	}
	if len(names) == 0 {
		return nil
	}
	p.NominalY(names...)
	p.Y.Min, p.Y.Max, p.Y.Label.Text = -0.5, float64(len(names))-0.3, " " // room on the left
	p.X.Max *= 1.15                                                       // room for the labels
	return p.Save(18*vg.Centimeter, vg.Length(len(names))*22+60, path)
}
