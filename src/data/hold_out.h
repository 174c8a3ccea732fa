// Splits a source by documents into a training and a validation part. Whether a document is held out depends on its
// number in the file and the fraction alone: not on the seed, so that runs of different seeds compare.
#pragma once

#include "data/token_source.h"

namespace hadal::data {

enum class Part { kTraining, kValidation };

/// The part of `source`. With fraction 0 the training part is the source itself and the validation part a UserError. With
/// fraction > 0 both parts have at least one document; UserError when the source has only one.
TokenSourcePtr hold_out(TokenSourcePtr source, Part part, double fraction);

}  // namespace hadal::data
