// Attention layers of small odd widths and four heads, in f64.
#pragma once

#include "nn/attention/attention_options.h"

namespace hadal::test {

/// With YaRN and q LoRA.
nn::AttentionOptions small_mla();
/// Two key heads.
nn::AttentionOptions small_gqa();
/// Blocks and window that do not fit a sequence evenly.
nn::NsaOptions small_nsa();

}  // namespace hadal::test
