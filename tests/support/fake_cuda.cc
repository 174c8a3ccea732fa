#include "tests/support/fake_cuda.h"

#include <sys/mman.h>
#include <unistd.h>

#include <array>
#include <atomic>
#include <cstring>
#include <functional>
#include <map>
#include <mutex>
#include <utility>
#include <vector>

#include "core/convert.h"
#include "core/device_backend.h"
#include "core/error.h"
#include "core/tensor.h"
#include "kernels/adamw.h"
#include "kernels/bias_update.h"
#include "kernels/branch_gate.h"
#include "kernels/cast.h"
#include "kernels/copy_heads.h"
#include "kernels/expert_room.h"
#include "kernels/flash_attention.h"
#include "kernels/gemm.h"
#include "kernels/grouped_gemm.h"
#include "kernels/heads.h"
#include "kernels/linear_cross_entropy.h"
#include "kernels/local_rows.h"
#include "kernels/loss_sum.h"
#include "kernels/nsa.h"
#include "kernels/op.h"
#include "kernels/rms_norm.h"
#include "kernels/rope.h"
#include "kernels/router.h"
#include "kernels/router_product.h"
#include "kernels/rows.h"
#include "kernels/swiglu.h"
#include "kernels/vocab_cross_entropy.h"
#include "tests/support/fields.h"

namespace hadal::test {
namespace {

/// Device memory: one range of addresses that nobody may touch, and the same bytes a second time for the device's own use.
class Memory {
 public:
  Memory() {
    const int file = ::memfd_create("fake cuda", 0);
    HADAL_CHECK(file >= 0 && ::ftruncate(file, static_cast<off_t>(kBytes)) == 0, "no memory for the fake device");
    device_ = static_cast<std::byte*>(::mmap(nullptr, kBytes, PROT_NONE, MAP_SHARED | MAP_NORESERVE, file, 0));
    host_ = static_cast<std::byte*>(::mmap(nullptr, kBytes, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_NORESERVE, file, 0));
    HADAL_CHECK(device_ != MAP_FAILED && host_ != MAP_FAILED, "no address range for the fake device");
    ::close(file);
  }

  /// Null when there is none left. What was given back is not used again: the pool above keeps it.
  void* allocate(std::size_t bytes) {
    const std::scoped_lock lock(mutex_);
    const std::size_t begin = end_;
    if (begin + bytes > kBytes) return nullptr;
    end_ = (begin + bytes + 255) / 256 * 256;
    blocks_[begin] = bytes;
    return device_ + begin;
  }

  bool holds(const void* address) const {
    const auto* at = static_cast<const std::byte*>(address);
    return at >= device_ && at < device_ + kBytes;
  }
  /// The same byte where the device itself reaches it; host addresses stay.
  std::byte* reach(const void* address) const {
    auto* at = static_cast<std::byte*>(const_cast<void*>(address));
    return holds(at) ? host_ + (at - device_) : at;
  }
  /// The block that an address lies in: its begin, where the device reaches it, and its bytes.
  std::pair<std::byte*, std::size_t> block_of(const void* address) {
    const std::scoped_lock lock(mutex_);
    const auto offset = static_cast<std::size_t>(static_cast<const std::byte*>(address) - device_);
    const auto found = std::prev(blocks_.upper_bound(offset));
    return {host_ + found->first, found->second};
  }

 private:
  static constexpr std::size_t kBytes = std::size_t{8} << 30;

  std::byte* device_ = nullptr;
  std::byte* host_ = nullptr;
  std::mutex mutex_;
  std::size_t end_ = 0;
  std::map<std::size_t, std::size_t> blocks_;  ///< bytes by begin
};

Memory& memory() {
  static Memory* const memory = new Memory;
  return *memory;
}

std::atomic<std::int64_t> host_waits{0}, graph_launches{0};

using Work = std::vector<std::function<void()>>;

/// What a graph in the making has so far; null: work is done at once.
Work*& recording() {
  static Work* work = nullptr;
  return work;
}

void enqueue(std::function<void()> work) {
  if (recording() != nullptr) {
    recording()->push_back(std::move(work));
  } else {
    work();
  }
}

void copy(int, void*, void* to, const void* from, std::size_t bytes) {
  HADAL_CHECK(recording() == nullptr || (memory().holds(to) && memory().holds(from)), "a copy between host and device while a graph is recorded");
  if (!memory().holds(to)) ++host_waits;
  enqueue([=] { std::memcpy(memory().reach(to), memory().reach(from), bytes); });
}

void synchronize(int, void*) {
  HADAL_CHECK(recording() == nullptr, "a wait for the device while a graph is recorded");
  ++host_waits;
}

void* end_graph(int, void*) { return std::exchange(recording(), nullptr); }

void launch_graph(int, void*, void* graph) {
  for (const auto& work : *static_cast<Work*>(graph)) work();
  ++graph_launches;
}

const DeviceBackend backend{
    .num_devices = []() noexcept { return 1; },
    .allocate = [](int, std::size_t bytes) { return memory().allocate(bytes); },
    .release = [](int, void*) noexcept {},
    .compute_stream = [](int) -> void* { return nullptr; },
    .copy = copy,
    .zero = [](int, void*, void* at, std::size_t bytes) { enqueue([=] { std::memset(memory().reach(at), 0, bytes); }); },
    .synchronize = synchronize,
    .begin_graph = [](int, void*) { recording() = new Work; },
    .end_graph = end_graph,
    .launch_graph = launch_graph,
    .destroy_graph = [](void* graph) noexcept { delete static_cast<Work*>(graph); },
};

/// Views of one op's arguments, made fit for the CPU's implementation: where the device reaches them, bf16 as f32.
class Operands {
 public:
  /// `widen`: the CPU's op knows no bf16.
  Operands(const char* op, bool widen) : op_(op), widen_(widen) {}
  /// What was written goes back, rounded.
  void finish() {
    for (auto& [block, wide] : wide_) {
      if (!wide.written) continue;
      Tensor& values = wide.values;
      convert_floats(values, View{block, DType::kBf16, values.shape(), kCpu});
    }
  }

  void take(ConstView& view) {
    view.data = place(view.data, view.dtype, view.numel() != 0, false);
    view.device = kCpu;
  }
  void take(View& view) {
    view.data = place(view.data, view.dtype, view.numel() != 0, true);
    view.device = kCpu;
  }
  void take(kernels::ConstHeads& heads) { heads.data = place(heads.data, heads.dtype, heads.tokens != 0, false); }
  void take(kernels::Heads& heads) { heads.data = place(heads.data, heads.dtype, heads.tokens != 0, true); }
  template <class T, std::size_t N>
  void take(std::array<T, N>& all) {
    for (T& one : all) take(one);
  }
  template <class T>
  void take(T&) {}

 private:
  struct Wide {
    Tensor values;
    bool written = false;
  };

  void* place(const void* data, DType& dtype, bool used, bool written) {
    if (data == nullptr || !used) return const_cast<void*>(data);
    HADAL_CHECK(memory().holds(data), "op {} on cuda is given memory of the host", op_);
    std::byte* const at = memory().reach(data);
    if (dtype != DType::kBf16 || !widen_) return at;
    dtype = DType::kF32;
    const auto [block, bytes] = memory().block_of(data);
    Wide& wide = wide_[block];
    if (!wide.values.defined()) {
      const auto numel = static_cast<std::int64_t>(bytes / sizeof(Bf16));
      wide.values = Tensor::empty({numel}, DType::kF32);
      convert_floats(ConstView{block, DType::kBf16, {numel}, kCpu}, wide.values);
    }
    wide.written = wide.written || written;
    return wide.values.as<float>() + (at - block) / static_cast<std::ptrdiff_t>(sizeof(Bf16));
  }

  const char* op_;
  bool widen_;
  std::map<std::byte*, Wide> wide_;
};

template <class Args>
void run_now(const Args& args) {
  constexpr bool knows_bf16 = std::is_same_v<Args, kernels::AdamW> || std::is_same_v<Args, kernels::Cast>;
  Args mine = args;
  Operands operands(Args::kName, !knows_bf16);
  for_each_field(mine, [&](auto& field) { operands.take(field); });
  Stream cpu;
  kernels::slots<Args>.cpu(cpu, mine);
  operands.finish();
}

template <class Args>
void run_on_fake(Stream&, const Args& args) {
  enqueue([args] { run_now(args); });
}

template <class... Args>
void take_slots() {
  ((kernels::slots<Args>.cuda = run_on_fake<Args>), ...);
}

}  // namespace

std::byte* reach_fake(const void* address) { return memory().reach(address); }
std::int64_t num_host_waits() { return host_waits; }
std::int64_t num_graph_launches() { return graph_launches; }

void use_fake_cuda() {
  using namespace kernels;
  static const RegisterDeviceBackend registered(backend);
  take_slots<AdamW, Add, BalanceCounts, BalanceLoss, BiasUpdate, BranchGateBackward, BranchGateForward, Cast, CombineRows, CopyHeads,
             DispatchPlan, ExpertRows, ExpertSends, FlashAttentionBackward, FlashAttentionForward, GatherRows, Gemm, GroupedGemmBackwardInput,
             GroupedGemmBackwardWeight, GroupedGemmForward, LinearCrossEntropy, LocalRows, LossSum, NsaCompressBackward, NsaCompressForward,
             NsaImportance, NsaSelect, NsaSelectedBackward, NsaSelectedForward, NsaTopBlocks, RefuseOverflow, RmsNormBackward, RmsNormForward, Rope,
             RouterBackward, RouterForward, RouterLogits, RouterLogitsBackward, ScatterAddRows, SpreadRows, SumSquares, SwigluBackward,
             SwigluForward, VocabCrossEntropy, VocabSoftmaxGradient, VocabSoftmaxTerms>();
}

}  // namespace hadal::test
