#include "plan/layer_time.h"

#include <algorithm>

#include "kernels/nsa.h"

namespace hadal::plan {
namespace {

double number(std::int64_t value) { return static_cast<double>(value); }

}  // namespace

PassTime& PassTime::operator+=(const PassTime& other) {
  compute += other.compute;
  transfer += other.transfer;
  exposed += other.exposed;
  return *this;
}

LayerTime& LayerTime::operator+=(const LayerTime& other) {
  forward += other.forward;
  input += other.input;
  weight += other.weight;
  return *this;
}

double LayerClock::element() const { return static_cast<double>(size_of(s_.formats.compute)); }

double LayerClock::peak() const {
  switch (s_.formats.compute) {
    case DType::kF64:
      return m_.peak.f64;
    case DType::kBf16:
      return m_.peak.bf16;
    default:
      return m_.peak.f32;
  }
}

double LayerClock::pass(double bytes) const { return bytes / (m_.memory_bandwidth * m_.efficiency.memory); }

double LayerClock::send(double bytes, std::int64_t ranks, double messages) const {
  if (bytes <= 0) return 0;
  const bool inside = ranks <= m_.ranks_per_node;
  return bytes / (inside ? m_.link.intra * m_.efficiency.intra : m_.link.inter * m_.efficiency.inter) +
         messages * m_.link.latency_us * 1e-6;
}

LayerTime LayerClock::products(Kind kind, double m, double n, double k, double count) const {
  const double share = kind == Kind::kDense ? m_.efficiency.gemm : m_.efficiency.grouped_gemm;
  const double work = 2 * m * n * k / (peak() * share);
  const double weights = count * n * k, rows = m * (n + k);
  const auto gradient = static_cast<double>(size_of(s_.formats.gradient));
  const double once = std::max(work, pass((weights + rows) * element()));
  // A weight's gradient is read, added to and written.
  return {{.compute = once}, {.compute = once}, {.compute = std::max(work, pass(rows * element() + 2 * weights * gradient))}};
}

LayerTime LayerClock::elements(double forward, double backward) const {
  return {{.compute = pass(forward * element())}, {.compute = pass(backward * element())}, {}};
}

PassTime LayerClock::traffic(const LayerBytes& bytes) const {
  PassTime time;
  time.transfer = send(bytes.tp, s_.tp, 2) + send(bytes.cp, s_.cp * s_.tp, 1);
  // The two hops of an all-to-all follow each other for one token, but rows of both kinds of link are under way at once.
  const double experts =
      std::max(send(bytes.ep_intra, 1, 2), bytes.ep_inter > 0 ? send(bytes.ep_inter, m_.ranks_per_node + 1, 2) : 0);
  time.transfer += experts;
  time.exposed = time.transfer;
  return time;
}

LayerTime LayerClock::scores(bool sparse) const {
  const AttentionSection& a = s_.model.attention;
  const double qk = number(a.kind == AttentionKind::kMla ? a.qk_nope_head_dim + a.qk_rope_head_dim : a.head_dim),
               v = number(a.v_head_dim);
  const double heads = number(a.num_heads / s_.tp), sequence = number(s_.whole_seq), share = number(s_.batch) / number(s_.cp);
  double keys = sequence * (sequence + 1) / 2, importance = 0;
  if (sparse) {
    const NsaSection& nsa = a.nsa;
    const double entries = number(kernels::num_compressed(s_.whole_seq, nsa.block_length, nsa.block_stride)) * sequence / 2;
    const double selected = number(nsa.num_selected * nsa.select_block), window = number(nsa.window);
    const auto reach = [&](double width) { return width >= sequence ? keys : width * sequence - width * width / 2; };
    importance = 2 * share * heads * entries * qk;
    keys = entries + reach(std::min(selected, sequence)) + reach(std::min(window, sequence));
  }
  const double forward = 2 * share * heads * keys * (qk + v), backward = 2 * share * heads * keys * (3 * qk + 2 * v);
  const MachineEfficiencySection& e = m_.efficiency;
  return {{.compute = (forward + importance) / (peak() * (sparse ? e.sparse_attention : e.attention_forward))},
          {.compute = backward / (peak() * (sparse ? e.sparse_attention : e.attention_backward))},
          {}};
}

LayerTime LayerClock::attention(bool sparse) const {
  const AttentionSection& a = s_.model.attention;
  const double t = number(s_.tokens), d = number(s_.model.hidden_size), heads = number(a.num_heads) / number(s_.tp),
               v = number(a.v_head_dim);
  const double branches = sparse ? 3 : 1;
  LayerTime time = scores(sparse);
  if (a.kind == AttentionKind::kMla) {
    const double qk = number(a.qk_nope_head_dim + a.qk_rope_head_dim), rank = number(a.kv_lora_rank),
                 rope = number(a.qk_rope_head_dim);
    const double up = heads * (number(a.qk_nope_head_dim) + v), whole = number(s_.batch * s_.last_position);
    if (a.q_lora_rank > 0) time += products(Kind::kDense, t, number(a.q_lora_rank), d);
    time += products(Kind::kDense, t, heads * qk, a.q_lora_rank > 0 ? number(a.q_lora_rank) : d);
    time += products(Kind::kDense, t, rank + rope, d);
    time += products(Kind::kDense, whole * (sparse ? 2 : 1), up, rank);
    time += elements(3 * t * (number(a.q_lora_rank) + rank + rope) + 2 * t * heads * rope,
                     6 * t * (number(a.q_lora_rank) + rank) + 2 * t * heads * rope);
  } else {
    const double groups = number(a.num_kv_heads) / number(s_.tp), dk = number(a.head_dim);
    time += products(Kind::kDense, t, heads * dk, d);
    time += products(Kind::kDense, t, branches * groups * (dk + v), d);
    time += elements(2 * t * (heads + groups) * dk, 2 * t * (heads + groups) * dk);
  }
  if (sparse) {
    time += products(Kind::kDense, t, 3 * heads, d);
    time += elements(4 * t * heads * v, 7 * t * heads * v);
  }
  time += products(Kind::kDense, t, d, heads * v);
  const LayerTraffic bytes = attention_traffic(s_, sparse);
  time.forward += traffic(bytes.forward);
  time.input += traffic(bytes.backward);
  return time;
}

LayerTime LayerClock::feed_forward(double width) const {
  const double t = number(s_.tokens), d = number(s_.model.hidden_size);
  LayerTime time = products(Kind::kDense, t, 2 * width, d);
  time += products(Kind::kDense, t, d, width);
  time += elements(3 * t * width, 5 * t * width);
  return time;
}

LayerTime LayerClock::moe() const {
  const MoeSection& moe = s_.model.moe;
  const double rows = s_.experts.expert, d = number(s_.model.hidden_size), width = number(moe.intermediate_size) / number(s_.etp);
  const double here = number(moe.num_experts) / number(s_.ep), t = number(s_.token_rows), e = number(moe.num_experts);
  LayerTime shared;
  if (moe.num_shared > 0) shared = feed_forward(number(moe.num_shared * moe.intermediate_size) / number(s_.tp));
  LayerTime time = shared;
  time += products(Kind::kGrouped, rows, 2 * width, d, here);
  time += products(Kind::kGrouped, rows, d, width, here);
  time += products(Kind::kDense, t, e, d);
  const double moved = 2 * (s_.experts.first_sent + s_.experts.second_sent) * d;
  time += elements(3 * rows * width + (3 * rows + 2 * t) * d + 4 * t * e + moved,
                   5 * rows * width + (3 * rows + 2 * t) * d + 4 * t * e + moved);
  const LayerTraffic bytes = ffn_traffic(s_, true);
  PassTime forward = traffic(bytes.forward), backward = traffic(bytes.backward);
  const auto hide = [&](PassTime& pass, const PassTime& under) {
    pass.exposed -= std::min(pass.transfer, under.compute) * m_.overlap.experts;
  };
  hide(forward, shared.forward);
  hide(backward, shared.input);
  time.forward += forward;
  time.input += backward;
  return time;
}

LayerTime LayerClock::block(bool sparse, bool moe_layer) const {
  const double rows = number(s_.token_rows * s_.model.hidden_size);
  LayerTime time = attention(sparse);
  time += elements(10 * rows, 12 * rows);  // two norms, two residual sums
  if (moe_layer) {
    time += moe();
    return time;
  }
  time += feed_forward(number(s_.model.intermediate_size) / number(s_.tp));
  const LayerTraffic bytes = ffn_traffic(s_, false);
  time.forward += traffic(bytes.forward);
  time.input += traffic(bytes.backward);
  return time;
}

LayerTime LayerClock::embedding() const {
  LayerTime time = elements(2 * number(s_.tokens * s_.model.hidden_size), 3 * number(s_.tokens * s_.model.hidden_size));
  const LayerTraffic bytes = embedding_traffic(s_);
  time.forward += traffic(bytes.forward);
  time.input += traffic(bytes.backward);
  return time;
}

LayerTime LayerClock::head() const {
  // Loss, input and weight gradients in one go, forward.
  const double t = number(s_.tokens), d = number(s_.model.hidden_size), columns = number(s_.vocabulary);
  const LayerTime product = products(Kind::kDense, t, columns, d);
  LayerTime time;
  time.forward = product.forward;
  time.forward += product.input;
  time.forward += product.weight;
  time.forward.compute += pass(4 * t * columns * element());
  time.forward += traffic(head_traffic(s_).forward);
  time += elements(2 * t * d, 4 * t * d);
  return time;
}

LayerTime LayerClock::mtp_projection() const {
  const double rows = number(s_.token_rows), d = number(s_.model.hidden_size);
  LayerTime time = products(Kind::kDense, rows, d, 2 * d);
  time += elements(6 * rows * d, 10 * rows * d);
  return time;
}

}  // namespace hadal::plan
