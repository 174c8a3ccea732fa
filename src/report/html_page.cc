#include "report/html_page.h"

#include <fmt/core.h>

#include "report/page_assets.h"
#include "report/page_data.h"

namespace hadal::report {

std::string html_escape(std::string_view text) {
  std::string escaped;
  for (const char c : text) {
    switch (c) {
      case '&':
        escaped += "&amp;";
        break;
      case '<':
        escaped += "&lt;";
        break;
      case '>':
        escaped += "&gt;";
        break;
      case '"':
        escaped += "&quot;";
        break;
      default:
        escaped += c;
    }
  }
  return escaped;
}

std::string script_safe(std::string json) {
  for (std::size_t at = json.find("</"); at != std::string::npos; at = json.find("</", at + 3)) json.replace(at, 2, "<\\/");
  for (std::size_t at = json.find("<!--"); at != std::string::npos; at = json.find("<!--", at + 8))
    json.replace(at, 4, "\\u003c!--");
  return json;
}

std::string html_page(std::span<const Run> runs, std::string_view title) {
  std::string page;
  page += "<!DOCTYPE html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n";
  page += "<meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n";
  page += "<meta name=\"color-scheme\" content=\"light dark\">\n";
  page += fmt::format("<title>{}</title>\n<style>{}</style>\n</head>\n<body>\n", html_escape(title), page_style());
  page += page_body();
  page += fmt::format("<script type=\"application/json\" id=\"data\">{}</script>\n", script_safe(page_data(runs, PageLimits{})));
  page += fmt::format("<script>{}{}</script>\n</body>\n</html>\n", page_script_charts(), page_script_layout());
  return page;
}

}  // namespace hadal::report
