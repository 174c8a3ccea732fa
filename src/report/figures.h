// Figures of a run out of its columns, and how they are written.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "report/run_data.h"

namespace hadal::report {

/// The column's finite values in rows from `first_row` on.
std::vector<double> finite_values(const Run& run, std::string_view key, std::size_t first_row = 0);

/// NaN of nothing.
double median(std::vector<double> values);
double largest(const std::vector<double>& values);

/// "870", "14.2 kB", "4.20 M".
std::string scaled_text(double value, const char* unit = "");

/// Rows of cells in columns: the first to the left, the others to the right, two blanks between them. All rows have as many cells.
std::string aligned(const std::vector<std::vector<std::string>>& rows);

}  // namespace hadal::report
