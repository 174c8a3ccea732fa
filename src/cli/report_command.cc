// hadal report RUN...: the HTML page, a summary table, what was predicted beside it, and a plot of the loss in the terminal.
#include <fmt/core.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <set>
#include <string_view>

#include "cli/command_functions.h"
#include "cli/common_flags.h"
#include "core/error.h"
#include "core/file.h"
#include "core/log.h"
#include "report/comparison.h"
#include "report/html_page.h"
#include "report/run_data.h"
#include "report/summary.h"
#include "report/terminal_plot.h"

namespace hadal::cli {
namespace {

/// Weight of the past in the plotted training loss, for runs of over a hundred steps.
constexpr double kSmoothing = 0.95;

std::string_view variable(const char* name) {
  const char* text = std::getenv(name);
  return text == nullptr ? std::string_view() : std::string_view(text);
}

/// Runs of the same directory name get their parents' names in front until all differ.
void make_names_unique(std::vector<report::Run>& runs) {
  std::multiset<std::string> names;
  for (const report::Run& run : runs) names.insert(run.name);
  for (report::Run& run : runs) {
    if (names.count(run.name) > 1) run.name = run.directory.lexically_normal().string();
  }
  std::set<std::string> taken;
  for (report::Run& run : runs) {
    for (int copy = 2; !taken.insert(run.name).second; ++copy) run.name += fmt::format(" ({})", copy);
  }
}

report::PlotOptions plot_options(bool ascii, bool several) {
  report::PlotOptions options;
  const bool terminal = isatty(STDOUT_FILENO) == 1;
  struct winsize size = {};
  if (terminal && ioctl(STDOUT_FILENO, TIOCGWINSZ, &size) == 0 && size.ws_col > 0)
    options.width = std::min<int>(size.ws_col, 120);
  const bool wanted = variable("HADAL_COLOUR") == "1" || (terminal && variable("TERM") != "dumb");
  options.colour = wanted && variable("NO_COLOR").empty();
  // Without colours dots do not tell several runs apart; characters do.
  options.unicode = !ascii && variable("TERM") != "linux" && (options.colour || !several);
  options.x_title = "step";
  return options;
}

std::string loss_plot(const std::vector<report::Run>& runs, const report::PlotOptions& options) {
  std::vector<report::Curve> curves;
  for (const report::Run& run : runs) {
    const std::string prefix = runs.size() > 1 ? run.name + " " : "";
    const std::vector<double> steps(run.steps.begin(), run.steps.end());
    if (const std::vector<double>* loss = run.column("loss")) {
      curves.push_back({prefix + "training loss", steps, report::smoothed(*loss, steps.size() > 100 ? kSmoothing : 0.0), true});
    }
    const std::vector<double>* validation = run.column("val_loss");
    if (validation != nullptr && runs.size() == 1) curves.push_back({"validation loss", steps, *validation, false});
  }
  return report::terminal_plot(curves, options);
}

}  // namespace

int report_command(const std::vector<std::string>& arguments) {
  CLI::App app;
  OutputFlags output;
  std::vector<std::string> paths;
  std::string out;
  bool ascii = false;
  app.add_option("RUN", paths, "run directories (run.dir of their configs), shown side by side")->required();
  app.add_option("--out", out, "the HTML page; default: report.html in the first run's directory")->type_name("FILE.html");
  app.add_flag("--ascii", ascii, "plot with plain characters instead of Unicode dots");
  add_quiet_flag(app, output);
  parse_arguments(app, "report", arguments);

  std::vector<report::Run> runs;
  for (const std::string& path : paths) runs.push_back(report::load_run(path));
  make_names_unique(runs);
  if (out.empty()) out = (runs.front().directory / "report.html").string();
  write_file_atomically(out, report::html_page(runs, runs.size() == 1 ? runs.front().name : "Hadal report"));

  const std::string plot = loss_plot(runs, plot_options(ascii, runs.size() > 1));
  fmt::print("{}\n{}\n{}{}", report::summary_text(runs), report::comparison_text(runs), plot, plot.empty() ? "" : "\n");
  fmt::print("report: {}\n", out);
  return static_cast<int>(ExitCode::kDone);
}

}  // namespace hadal::cli
