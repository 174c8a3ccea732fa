#include "train/run_data.h"

#include "data/hold_out.h"
#include "data/open_source.h"

namespace hadal::train {
namespace {

void check_vocabulary(const data::Sampler& sampler, const Config& config) {
  if (sampler.vocab_size() > static_cast<std::uint64_t>(config.model.vocab_size)) {
    throw UserError("model.vocab_size is {}, the token files hold ids up to {}; set model.vocab_size to at least {}", config.model.vocab_size,
                    sampler.vocab_size() - 1, sampler.vocab_size());
  }
}

void check_tokenizer(const RunData& data) {
  if (!data.tokenizer) return;
  for (std::size_t s = 0; s < data.training->num_sources(); ++s) {
    const data::TokenSource& source = data.training->source(s);
    if (!source.tokenizer_hash().empty() && source.tokenizer_hash() != data.tokenizer->hash()) {
      throw UserError("{}: was made with another tokenizer ({}) than data.tokenizer ({}); rebuild it with `hadal data build`", source.name(),
                      source.tokenizer_hash(), data.tokenizer->hash());
    }
  }
}

data::FillInMiddle fill_in_middle(const Config& config, const RunData& data) {
  data::FillInMiddle fim;
  fim.rate = config.data.fim_rate;
  if (fim.rate == 0) return fim;
  if (!data.tokenizer) throw UserError("data.fim_rate is {}, but data.tokenizer is not set: its fill-in-the-middle ids are needed", fim.rate);
  fim.begin_id = data.tokenizer->fim_begin_id();
  fim.hole_id = data.tokenizer->fim_hole_id();
  fim.end_id = data.tokenizer->fim_end_id();
  return fim;
}

}  // namespace

std::unique_ptr<data::Sampler> sequential_sampler(const std::vector<data::TokenSourcePtr>& sources, std::int64_t sequence_length) {
  std::vector<data::WeightedSource> weighted;
  for (const data::TokenSourcePtr& source : sources) weighted.push_back({source, static_cast<double>(std::max<std::uint64_t>(source->num_tokens(), 1))});
  data::SamplerOptions options;
  options.sequence_length = sequence_length;
  options.shuffle = false;
  options.mask_filled_up = true;
  return std::make_unique<data::Sampler>(std::move(weighted), options);
}

RunData open_run_data(const Config& config) {
  RunData result;
  if (config.data.sources.empty()) {
    throw UserError("data.sources is empty; name at least one token file, such as data.sources.0.path=tokens.h5 (made by `hadal data build`)");
  }
  if (!config.data.tokenizer.empty()) result.tokenizer = tokenizer::Tokenizer::load(config.data.tokenizer);
  std::vector<data::WeightedSource> training;
  std::vector<data::TokenSourcePtr> validation;
  const double fraction = config.data.validation_fraction;
  for (const DataSource& source : config.data.sources) {
    const data::TokenSourcePtr opened = data::open_token_source(source.path);
    if (fraction > 0) {
      training.push_back({data::hold_out(opened, data::Part::kTraining, fraction), source.weight});
      validation.push_back(data::hold_out(opened, data::Part::kValidation, fraction));
    } else {
      training.push_back({opened, source.weight});
    }
  }
  for (const DataSource& source : config.data.validation_sources) validation.push_back(data::open_token_source(source.path));
  data::SamplerOptions options;
  options.seed = static_cast<std::uint64_t>(config.run.seed);
  options.sequence_length = config.data.sequence_length;
  options.fim = fill_in_middle(config, result);
  result.training = std::make_unique<data::Sampler>(std::move(training), options);
  check_vocabulary(*result.training, config);
  check_tokenizer(result);
  if (!validation.empty()) {
    result.validation = sequential_sampler(validation, config.data.sequence_length);
    check_vocabulary(*result.validation, config);
  }
  return result;
}

}  // namespace hadal::train
