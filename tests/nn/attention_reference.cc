#include "tests/nn/attention_reference.h"

#include <algorithm>
#include <cmath>
#include <functional>
#include <limits>

#include "tests/support/gradient_check.h"

namespace hadal::test {
namespace {

struct Matrix {
  std::int64_t rows = 0, cols = 0;
  std::vector<double> values;

  Matrix(std::int64_t r, std::int64_t c) : rows(r), cols(c), values(static_cast<std::size_t>(r * c), 0.0) {}
  double& at(std::int64_t r, std::int64_t c) { return values[static_cast<std::size_t>(r * cols + c)]; }
  double at(std::int64_t r, std::int64_t c) const { return values[static_cast<std::size_t>(r * cols + c)]; }
};

/// x w^T.
Matrix project(const Matrix& x, const Matrix& w) {
  Matrix y(x.rows, w.rows);
  for (std::int64_t t = 0; t < x.rows; ++t) {
    for (std::int64_t o = 0; o < w.rows; ++o) {
      for (std::int64_t i = 0; i < x.cols; ++i) y.at(t, o) += x.at(t, i) * w.at(o, i);
    }
  }
  return y;
}

Matrix columns(const Matrix& x, std::int64_t begin, std::int64_t width) {
  Matrix y(x.rows, width);
  for (std::int64_t t = 0; t < x.rows; ++t) {
    for (std::int64_t i = 0; i < width; ++i) y.at(t, i) = x.at(t, begin + i);
  }
  return y;
}

Matrix join(const Matrix& a, const Matrix& b) {
  Matrix y(a.rows, a.cols + b.cols);
  for (std::int64_t t = 0; t < a.rows; ++t) {
    for (std::int64_t i = 0; i < y.cols; ++i) y.at(t, i) = i < a.cols ? a.at(t, i) : b.at(t, i - a.cols);
  }
  return y;
}

Matrix rms_norm(const Matrix& x, const Matrix& gain, double eps) {
  Matrix y = x;
  for (std::int64_t t = 0; t < x.rows; ++t) {
    double sum = 0;
    for (std::int64_t i = 0; i < x.cols; ++i) sum += x.at(t, i) * x.at(t, i);
    for (std::int64_t i = 0; i < x.cols; ++i)
      y.at(t, i) *= gain.values[static_cast<std::size_t>(i)] / std::sqrt(sum / double(x.cols) + eps);
  }
  return y;
}

/// Rotates all columns of row t to position t * stride.
Matrix rotate(const Matrix& x, const nn::RopeOptions& options, std::int64_t stride = 1) {
  const nn::YarnOptions& yarn = options.yarn;
  const double w = double(x.cols), s = yarn.factor;
  const auto corr = [&](double n) {
    return w * std::log(double(yarn.original_length) / (2 * M_PI * n)) / (2 * std::log(options.theta));
  };
  const auto m = [&](double mscale) { return s > 1 ? 0.1 * mscale * std::log(s) + 1 : 1.0; };
  const double low = std::max(std::floor(corr(yarn.beta_fast)), 0.0);
  double high = std::min(std::ceil(corr(yarn.beta_slow)), w - 1);
  if (low == high) high += 0.001;
  Matrix y = x;
  for (std::int64_t t = 0; t < x.rows; ++t) {
    for (std::int64_t i = 0; i < x.cols / 2; ++i) {
      const double f = std::pow(options.theta, -2.0 * double(i) / w);
      const double ramp = s > 1 ? std::min(1.0, std::max(0.0, (double(i) - low) / (high - low))) : 0.0;
      const double angle = double(t * stride) * (f / s * ramp + f * (1 - ramp));
      const double factor = m(yarn.mscale) / m(yarn.mscale_all_dim);
      const double a = x.at(t, 2 * i), b = x.at(t, 2 * i + 1);
      y.at(t, 2 * i) = factor * (a * std::cos(angle) - b * std::sin(angle));
      y.at(t, 2 * i + 1) = factor * (a * std::sin(angle) + b * std::cos(angle));
    }
  }
  return y;
}

using Visible = std::function<bool(std::int64_t, std::int64_t)>;

/// Softmax weights [queries, keys]; a row that sees nothing is zero.
Matrix probabilities(const Matrix& q, const Matrix& k, double scale, const Visible& visible) {
  Matrix p(q.rows, k.rows);
  for (std::int64_t t = 0; t < q.rows; ++t) {
    double sum = 0, largest = -std::numeric_limits<double>::infinity();
    std::vector<double> score(static_cast<std::size_t>(k.rows));
    for (std::int64_t j = 0; j < k.rows; ++j) {
      if (!visible(t, j)) continue;
      double& s = score[static_cast<std::size_t>(j)];
      for (std::int64_t i = 0; i < q.cols; ++i) s += scale * q.at(t, i) * k.at(j, i);
      largest = std::max(largest, s);
    }
    for (std::int64_t j = 0; j < k.rows; ++j) {
      if (visible(t, j)) sum += p.at(t, j) = std::exp(score[static_cast<std::size_t>(j)] - largest);
    }
    for (std::int64_t j = 0; j < k.rows; ++j) p.at(t, j) /= sum > 0 ? sum : 1;
  }
  return p;
}

Matrix transpose(const Matrix& x) {
  Matrix y(x.cols, x.rows);
  for (std::int64_t r = 0; r < x.rows; ++r) {
    for (std::int64_t c = 0; c < x.cols; ++c) y.at(c, r) = x.at(r, c);
  }
  return y;
}

Matrix attend(const Matrix& q, const Matrix& k, const Matrix& v, double scale, const Visible& visible) {
  return project(probabilities(q, k, scale, visible), transpose(v));
}

/// Blocks of l rows every d, pooled per channel with weights softmax_j(logits + position).
Matrix pool(const Matrix& x, const Matrix& logits, const Matrix& position, const nn::NsaOptions& nsa) {
  const std::int64_t l = nsa.block_length, d = nsa.block_stride;
  Matrix y(x.rows < l ? 0 : (x.rows - l) / d + 1, x.cols);
  for (std::int64_t i = 0; i < y.rows; ++i) {
    for (std::int64_t c = 0; c < x.cols; ++c) {
      double sum = 0, weighted = 0;
      for (std::int64_t j = 0; j < l; ++j) {
        const double weight = std::exp(logits.at(i * d + j, c) + position.at(j, c));
        sum += weight;
        weighted += weight * x.at(i * d + j, c);
      }
      y.at(i, c) = weighted / sum;
    }
  }
  return y;
}

/// chosen(t, j): whether query t of the group attends block j, from the summed probabilities of its heads over compressed blocks.
std::vector<std::vector<bool>> choose_blocks(const std::vector<Matrix>& p_cmp, std::int64_t seq, const nn::NsaOptions& nsa) {
  const std::int64_t l = nsa.block_length, d = nsa.block_stride, s = nsa.select_block, blocks = (seq + s - 1) / s;
  std::vector<std::vector<bool>> chosen(static_cast<std::size_t>(seq),
                                        std::vector<bool>(static_cast<std::size_t>(blocks), false));
  for (std::int64_t t = 0; t < seq; ++t) {
    const std::int64_t own = t / s;
    std::vector<double> importance(static_cast<std::size_t>(own + 1), 0.0);
    std::vector<std::int64_t> order;
    for (std::int64_t j = 0; j <= own; ++j) {
      for (const Matrix& p : p_cmp) {
        for (std::int64_t i = 0; i < p.cols; ++i) {
          const std::int64_t overlap = std::min(i * d + l, (j + 1) * s) - std::max(i * d, j * s);
          if (overlap > 0) importance[static_cast<std::size_t>(j)] += p.at(t, i) * double(overlap) / double(d);
        }
      }
      if (j == 0 || j >= own - 1) importance[static_cast<std::size_t>(j)] = std::numeric_limits<double>::infinity();
      order.push_back(j);
    }
    std::stable_sort(order.begin(), order.end(), [&](std::int64_t a, std::int64_t b) {
      return importance[static_cast<std::size_t>(a)] > importance[static_cast<std::size_t>(b)];
    });
    for (std::size_t k = 0; k < order.size() && k < static_cast<std::size_t>(nsa.num_selected); ++k) {
      chosen[static_cast<std::size_t>(t)][static_cast<std::size_t>(order[k])] = true;
    }
  }
  return chosen;
}

/// Everything one head of one branch attends to.
struct HeadInputs {
  Matrix q, k, v;
};

/// One sequence.
class Reference {
 public:
  Reference(const nn::AttentionOptions& options, std::map<std::string, Matrix> weights)
      : o_(options), weights_(std::move(weights)), scale_(1 / std::sqrt(double(options.qk_width()))) {
    const nn::YarnOptions& yarn = o_.rope.yarn;
    if (yarn.factor > 1) scale_ *= std::pow(0.1 * yarn.mscale_all_dim * std::log(yarn.factor) + 1, 2);
  }

  Matrix run(const Matrix& x) {
    Matrix o = o_.kind == nn::AttentionOptions::Kind::kMla ? mla(x) : gqa(x);
    return project(o, w("o_proj.weight"));
  }

 private:
  const Matrix& w(const std::string& name) const { return weights_.at(name); }

  Matrix mla(const Matrix& x) {
    const std::int64_t dn = o_.qk_nope_head_dim, dr = o_.qk_rope_head_dim, dv = o_.v_head_dim, rank = o_.kv_lora_rank;
    const Matrix q = o_.q_lora_rank > 0
                         ? project(rms_norm(project(x, w("q_a_proj.weight")), w("q_a_layernorm.weight"), o_.rms_norm_eps),
                                   w("q_b_proj.weight"))
                         : project(x, w("q_proj.weight"));
    const Matrix a = project(x, w("kv_a_proj_with_mqa.weight"));
    const Matrix c = rms_norm(columns(a, 0, rank), w("kv_a_layernorm.weight"), o_.rms_norm_eps), r = columns(a, rank, dr);
    const Matrix k_rope = rotate(r, o_.rope);
    const auto head = [&](std::int64_t h, const Matrix& latent, const Matrix& shared, const std::string& up) -> HeadInputs {
      const Matrix kv = columns(project(latent, w(up)), h * (dn + dv), dn + dv);
      return {join(columns(q, h * (dn + dr), dn), rotate(columns(q, h * (dn + dr) + dn, dr), o_.rope)),
              join(columns(kv, 0, dn), shared), columns(kv, dn, dv)};
    };
    std::vector<HeadInputs> slc, cmp, win;
    for (std::int64_t h = 0; h < o_.num_heads; ++h) slc.push_back(head(h, c, k_rope, "kv_b_proj.weight"));
    if (!o_.nsa) return dense(slc);
    const bool tied = o_.nsa->tie_up;
    const Matrix pooled = pool(c, project(c, w("nsa.compress.latent_weight")), w("nsa.compress.latent_position"), *o_.nsa);
    const Matrix c_pooled = rms_norm(pooled, w("nsa.compress.norm.weight"), o_.rms_norm_eps);
    const Matrix k_pooled = rotate(pool(r, project(c, w("nsa.compress.rope_weight")), w("nsa.compress.rope_position"), *o_.nsa),
                                   o_.rope, o_.nsa->block_stride);
    for (std::int64_t h = 0; h < o_.num_heads; ++h) {
      cmp.push_back(head(h, c_pooled, k_pooled, tied ? "kv_b_proj.weight" : "nsa.cmp.kv_b_proj.weight"));
      win.push_back(head(h, c, k_rope, tied ? "kv_b_proj.weight" : "nsa.win.kv_b_proj.weight"));
    }
    return sparse(x, cmp, slc, win, o_.nsa->num_select_groups);
  }

  Matrix gqa(const Matrix& x) {
    const std::int64_t dk = o_.head_dim, dv = o_.v_head_dim, share = o_.num_heads / o_.num_kv_heads;
    const Matrix q = project(x, w("q_proj.weight"));
    const auto head = [&](std::int64_t h, const Matrix& k, const Matrix& v) -> HeadInputs {
      return {rotate(columns(q, h * dk, dk), o_.rope), k, v};
    };
    const auto tokens = [&](std::int64_t h, const std::string& branch) {
      const std::int64_t g = h / share;
      return head(h, rotate(columns(project(x, w(branch + "k_proj.weight")), g * dk, dk), o_.rope),
                  columns(project(x, w(branch + "v_proj.weight")), g * dv, dv));
    };
    std::vector<HeadInputs> slc, cmp, win;
    for (std::int64_t h = 0; h < o_.num_heads; ++h) {
      const std::int64_t g = h / share;
      if (!o_.nsa) {
        slc.push_back(tokens(h, ""));
        continue;
      }
      slc.push_back(tokens(h, "nsa.slc."));
      win.push_back(tokens(h, "nsa.win."));
      const Matrix k = columns(project(x, w("nsa.cmp.k_proj.weight")), g * dk, dk),
                   v = columns(project(x, w("nsa.cmp.v_proj.weight")), g * dv, dv);
      cmp.push_back(head(
          h, rotate(pool(k, project(k, w("nsa.phi_k.weight")), w("nsa.phi_k.position"), *o_.nsa), o_.rope, o_.nsa->block_stride),
          pool(v, project(v, w("nsa.phi_v.weight")), w("nsa.phi_v.position"), *o_.nsa)));
    }
    return o_.nsa ? sparse(x, cmp, slc, win, o_.num_kv_heads) : dense(slc);
  }

  Matrix dense(const std::vector<HeadInputs>& heads) {
    Matrix o(heads[0].q.rows, 0);
    for (const HeadInputs& h : heads) o = join(o, attend(h.q, h.k, h.v, scale_, [](auto t, auto j) { return j <= t; }));
    return o;
  }

  Matrix sparse(const Matrix& x, const std::vector<HeadInputs>& cmp, const std::vector<HeadInputs>& slc,
                const std::vector<HeadInputs>& win, std::int64_t groups) {
    const nn::NsaOptions& nsa = *o_.nsa;
    const std::int64_t heads = o_.num_heads, per_group = heads / groups;
    const Visible whole_block = [&](auto t, auto i) { return i * nsa.block_stride + nsa.block_length - 1 <= t; };
    std::vector<Matrix> p_cmp;
    for (const HeadInputs& h : cmp) p_cmp.push_back(probabilities(h.q, h.k, scale_, whole_block));
    const Matrix logits = project(x, w("nsa.gate.weight"));
    const Matrix& bias = w("nsa.gate.bias");
    Matrix o(x.rows, 0);
    for (std::int64_t h = 0; h < heads; ++h) {
      const auto first = p_cmp.begin() + h / per_group * per_group;
      const auto chosen = choose_blocks({first, first + per_group}, x.rows, nsa);
      const auto at = static_cast<std::size_t>(h);
      const Visible in_block = [&](auto t, auto j) {
        return j <= t && chosen[static_cast<std::size_t>(t)][static_cast<std::size_t>(j / nsa.select_block)];
      };
      const Visible in_window = [&](auto t, auto j) { return j <= t && j > t - nsa.window; };
      const Matrix branch[3] = {project(p_cmp[at], transpose(cmp[at].v)),
                                attend(slc[at].q, slc[at].k, slc[at].v, scale_, in_block),
                                attend(win[at].q, win[at].k, win[at].v, scale_, in_window)};
      Matrix mixed(x.rows, o_.v_head_dim);
      for (std::int64_t b = 0; b < 3; ++b) {
        for (std::int64_t t = 0; t < x.rows; ++t) {
          const double logit = logits.at(t, b * heads + h) + bias.values[static_cast<std::size_t>(b * heads + h)];
          for (std::int64_t i = 0; i < mixed.cols; ++i) mixed.at(t, i) += branch[b].at(t, i) / (1 + std::exp(-logit));
        }
      }
      o = join(o, mixed);
    }
    return o;
  }

  nn::AttentionOptions o_;
  std::map<std::string, Matrix> weights_;
  double scale_;
};

std::map<std::string, Matrix> read_weights(const nn::ParameterList& parameters, const std::string& prefix) {
  std::map<std::string, Matrix> weights;
  for (const nn::Parameter* parameter : parameters) {
    for (const nn::LogicalPart& part : parameter->parts()) {
      Matrix m(part.shape[0], part.shape.rank() > 1 ? part.shape[1] : 1);
      const double* values = parameter->value().as<double>() + part.offset;
      std::copy(values, values + m.values.size(), m.values.begin());
      weights.emplace(part.name.substr(prefix.size() + 1), std::move(m));
    }
  }
  return weights;
}

}  // namespace

Tensor reference_attention(const nn::AttentionOptions& options, const std::string& prefix, const nn::ParameterList& parameters,
                           ConstView x, std::int64_t batch) {
  Reference reference(options, read_weights(parameters, prefix));
  const std::int64_t seq = x.shape[0] / batch;
  Tensor y = Tensor::empty(x.shape, x.dtype);
  for (std::int64_t b = 0; b < batch; ++b) {
    Matrix rows(seq, x.shape[1]);
    const auto from = x.rows(b * seq, (b + 1) * seq).span<double>();
    std::copy(from.begin(), from.end(), rows.values.begin());
    const Matrix out = reference.run(rows);
    std::copy(out.values.begin(), out.values.end(), y.view().rows(b * seq, (b + 1) * seq).as<double>());
  }
  return y;
}

AttentionCase::AttentionCase(const nn::AttentionOptions& layer_options, double std) : options(layer_options) {
  layer = nn::make_attention(options, "model.layers.3.self_attn", nn::make_rope_table(options));
  layer->collect(parameters);
  randomize(parameters, 11, std);
}

nn::Parameter& AttentionCase::parameter(const std::string& name_end) const {
  for (nn::Parameter* p : parameters) {
    if (p->name() == "model.layers.3.self_attn." + name_end) return *p;
  }
  throw ContractError("no parameter " + name_end);
}

Tensor AttentionCase::forward(ConstView x, std::int64_t batch) {
  nn::Context ctx{stream, batch, x.shape[0] / batch};
  return layer->forward(ctx, x, nullptr);
}

}  // namespace hadal::test
