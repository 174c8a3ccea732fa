// Curves in a terminal: braille dots (2 x 4 a character), or plain characters where the terminal has no Unicode.
#pragma once

#include <span>
#include <string>
#include <vector>

namespace hadal::report {

struct Curve {
  std::string name;
  std::vector<double> x;  ///< increasing
  std::vector<double> y;  ///< same length; points that are not finite are left out
  bool line = true;       ///< joined by straight lines, else single marks
};

struct PlotOptions {
  int width = 80;   ///< columns, labels included; at least 40
  int height = 16;  ///< rows of the canvas; at least 4
  bool unicode = true;
  bool colour = false;  ///< ANSI colours, one a curve
  std::string x_title;
};

/// Axis labels at the left and below, a legend when there is more than one curve. Every line ends in a newline; "" without
/// points.
std::string terminal_plot(std::span<const Curve> curves, const PlotOptions& options);

/// About `count` round numbers covering [low, high]: multiples of 1, 2 or 5 times a power of ten.
std::vector<double> axis_ticks(double low, double high, int count);

}  // namespace hadal::report
