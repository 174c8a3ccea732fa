// One function per verb: gets the words after the verb, returns the exit code, throws hadal::Error for what goes wrong.
#pragma once

#include <string>
#include <vector>

namespace hadal::cli {

using CommandFunction = int (*)(const std::vector<std::string>& arguments);

int bench_command(const std::vector<std::string>& arguments);
int checkpoint_command(const std::vector<std::string>& arguments);
int config_command(const std::vector<std::string>& arguments);
int data_command(const std::vector<std::string>& arguments);
int doctor_command(const std::vector<std::string>& arguments);
int eval_command(const std::vector<std::string>& arguments);
int export_command(const std::vector<std::string>& arguments);
int generate_command(const std::vector<std::string>& arguments);
int import_command(const std::vector<std::string>& arguments);
int logits_command(const std::vector<std::string>& arguments);
int plan_command(const std::vector<std::string>& arguments);
int report_command(const std::vector<std::string>& arguments);
int tokenizer_command(const std::vector<std::string>& arguments);
int train_command(const std::vector<std::string>& arguments);
int verify_command(const std::vector<std::string>& arguments);

}  // namespace hadal::cli
