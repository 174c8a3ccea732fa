// What Hopper's asynchronous units need, one PTX instruction each (PTX ISA 8.0 and later, sm_90a): barriers that count bytes, the tensor
// copy engine, products of a warpgroup (four warps) with operands in shared memory.
//
// Operands lie in the 128-byte swizzle: lines of 64 bf16, 16-byte pieces of line r exchanged by r % 8; both the copy engine and the
// tensor cores compute it from the address, so tiles start at multiples of 1024 bytes.
#pragma once

#include <cuda.h>

#include <cstdint>

namespace hadal::kernels::cuda {

__device__ inline std::uint32_t shared_address(const void* pointer) { return static_cast<std::uint32_t>(__cvta_generic_to_shared(pointer)); }

// ------------------------------------------------------------------------------------------------------------------ barriers
__device__ inline void init_barrier(std::uint64_t* barrier, int arrivals) {
  asm volatile("mbarrier.init.shared::cta.b64 [%0], %1;" ::"r"(shared_address(barrier)), "r"(arrivals) : "memory");
}
/// After init_barrier, before a block barrier: the copy engine sees it too.
__device__ inline void publish_barriers() {
  asm volatile("fence.mbarrier_init.release.cluster;" ::: "memory");
  asm volatile("fence.proxy.async.shared::cta;" ::: "memory");
}
__device__ inline void arrive(std::uint64_t* barrier) {
  asm volatile("mbarrier.arrive.shared::cta.b64 _, [%0];" ::"r"(shared_address(barrier)) : "memory");
}
/// Arrives, and has the barrier wait for so many bytes of copies.
__device__ inline void arrive_expecting(std::uint64_t* barrier, int bytes) {
  asm volatile("mbarrier.arrive.expect_tx.shared::cta.b64 _, [%0], %1;" ::"r"(shared_address(barrier)), "r"(bytes) : "memory");
}
/// Until the phase of this parity is over.
__device__ inline void wait(std::uint64_t* barrier, int parity) {
  asm volatile(
      "{\n"
      ".reg .pred done;\n"
      "again:\n"
      "mbarrier.try_wait.parity.shared::cta.b64 done, [%0], %1;\n"
      "@done bra over;\n"
      "bra again;\n"
      "over:\n"
      "}\n" ::"r"(shared_address(barrier)),
      "r"(parity)
      : "memory");
}

/// Arrives at the barrier of the same place in block `rank` of the cluster.
__device__ inline void arrive_at(std::uint64_t* barrier, int rank) {
  asm volatile(
      "{\n"
      ".reg .b32 remote;\n"
      "mapa.shared::cluster.u32 remote, %0, %1;\n"
      "mbarrier.arrive.shared::cluster.b64 _, [remote];\n"
      "}\n" ::"r"(shared_address(barrier)),
      "r"(rank)
      : "memory");
}
/// All threads of all blocks of the cluster that have not ended.
__device__ inline void sync_cluster() {
  asm volatile("barrier.cluster.arrive.release;\nbarrier.cluster.wait.acquire;" ::: "memory");
}
__device__ inline int rank_in_cluster() {
  int rank;
  asm volatile("mov.u32 %0, %%cluster_ctarank;" : "=r"(rank));
  return rank;
}

/// Ordinary stores to shared memory before this are seen by the asynchronous units after it; a barrier among the threads follows.
__device__ inline void fence_shared_stores() { asm volatile("fence.proxy.async.shared::cta;" ::: "memory"); }
/// Barrier `id` (1 .. 15) among `threads` threads.
__device__ inline void sync_threads(int id, int threads) { asm volatile("bar.sync %0, %1;" ::"r"(id), "r"(threads) : "memory"); }

// --------------------------------------------------------------------------------------------------------------- copy engine
__device__ inline void prefetch_map(const CUtensorMap* map) {
  asm volatile("prefetch.tensormap [%0];" ::"l"(reinterpret_cast<std::uint64_t>(map)) : "memory");
}
/// A box of a rank-2 or rank-3 tensor to shared memory; coordinates from the fastest dim on. What lies outside the tensor becomes zero,
/// and counts as copied. The _to_all form writes to the same place in each block of `mask` of the cluster, and tells each one's barrier.
__device__ inline void copy_box(void* to, const CUtensorMap* map, std::uint64_t* barrier, int x, int y) {
  asm volatile("cp.async.bulk.tensor.2d.shared::cluster.global.tile.mbarrier::complete_tx::bytes [%0], [%1, {%3, %4}], [%2];" ::"r"(shared_address(to)),
               "l"(reinterpret_cast<std::uint64_t>(map)), "r"(shared_address(barrier)), "r"(x), "r"(y)
               : "memory");
}
__device__ inline void copy_box(void* to, const CUtensorMap* map, std::uint64_t* barrier, int x, int y, int z) {
  asm volatile("cp.async.bulk.tensor.3d.shared::cluster.global.tile.mbarrier::complete_tx::bytes [%0], [%1, {%3, %4, %5}], [%2];" ::"r"(shared_address(to)),
               "l"(reinterpret_cast<std::uint64_t>(map)), "r"(shared_address(barrier)), "r"(x), "r"(y), "r"(z)
               : "memory");
}
__device__ inline void copy_box_to_all(void* to, const CUtensorMap* map, std::uint64_t* barrier, std::uint16_t mask, int x, int y) {
  asm volatile("cp.async.bulk.tensor.2d.shared::cluster.global.tile.mbarrier::complete_tx::bytes.multicast::cluster [%0], [%1, {%4, %5}], [%2], %3;" ::"r"(
                   shared_address(to)),
               "l"(reinterpret_cast<std::uint64_t>(map)), "r"(shared_address(barrier)), "h"(mask), "r"(x), "r"(y)
               : "memory");
}
__device__ inline void copy_box_to_all(void* to, const CUtensorMap* map, std::uint64_t* barrier, std::uint16_t mask, int x, int y, int z) {
  asm volatile("cp.async.bulk.tensor.3d.shared::cluster.global.tile.mbarrier::complete_tx::bytes.multicast::cluster [%0], [%1, {%4, %5, %6}], [%2], %3;" ::"r"(
                   shared_address(to)),
               "l"(reinterpret_cast<std::uint64_t>(map)), "r"(shared_address(barrier)), "h"(mask), "r"(x), "r"(y), "r"(z)
               : "memory");
}

/// Adds a box of f32 in shared memory to a rank-3 tensor, leaving alone what lies outside it. Part of the thread's open group.
__device__ inline void add_box(const CUtensorMap* map, const void* from, int x, int y, int z) {
  asm volatile("cp.reduce.async.bulk.tensor.3d.global.shared::cta.add.tile.bulk_group [%0, {%2, %3, %4}], [%1];" ::"l"(reinterpret_cast<std::uint64_t>(map)),
               "r"(shared_address(from)), "r"(x), "r"(y), "r"(z)
               : "memory");
}
/// The same, overwriting.
__device__ inline void store_box(const CUtensorMap* map, const void* from, int x, int y, int z) {
  asm volatile("cp.async.bulk.tensor.3d.global.shared::cta.tile.bulk_group [%0, {%2, %3, %4}], [%1];" ::"l"(reinterpret_cast<std::uint64_t>(map)),
               "r"(shared_address(from)), "r"(x), "r"(y), "r"(z)
               : "memory");
}
__device__ inline void copies_commit() { asm volatile("cp.async.bulk.commit_group;" ::: "memory"); }
/// Until all but this thread's kPending newest groups have read their shared memory.
template <int kPending>
__device__ inline void copies_wait_read() {
  asm volatile("cp.async.bulk.wait_group.read %0;" ::"n"(kPending) : "memory");
}
/// Until this thread's groups are done.
__device__ inline void copies_wait() { asm volatile("cp.async.bulk.wait_group 0;" ::: "memory"); }

// ------------------------------------------------------------------------------------------------------ products of a warpgroup
/// Gives registers back, or takes them; by all four warps of a warpgroup.
template <int kCount>
__device__ inline void shrink_registers() {
  asm volatile("setmaxnreg.dec.sync.aligned.u32 %0;" ::"n"(kCount));
}
template <int kCount>
__device__ inline void grow_registers() {
  asm volatile("setmaxnreg.inc.sync.aligned.u32 %0;" ::"n"(kCount));
}

/// Before the first product after sums were touched, or shared memory written, by ordinary instructions.
__device__ inline void products_begin() { asm volatile("wgmma.fence.sync.aligned;" ::: "memory"); }
__device__ inline void products_commit() { asm volatile("wgmma.commit_group.sync.aligned;" ::: "memory"); }
/// Until at most kPending committed groups are unfinished.
template <int kPending>
__device__ inline void products_wait() {
  asm volatile("wgmma.wait_group.sync.aligned %0;" ::"n"(kPending) : "memory");
}

/// An operand in shared memory for products of 16 k: `stride` bytes from 8 lines to the next 8 (of rows where k is the fast index, of k
/// where it is not), `lead` bytes from 64 rows to the next 64 where k is not the fast index.
__device__ inline std::uint64_t operand(std::uint32_t address, int lead, int stride) {
  constexpr std::uint64_t kSwizzle128 = std::uint64_t{1} << 62;
  return kSwizzle128 | static_cast<std::uint64_t>((address & 0x3ffff) >> 4) | static_cast<std::uint64_t>(lead >> 4) << 16 |
         static_cast<std::uint64_t>(stride >> 4) << 32;
}

#define HADAL_F8(i) "+f"(d[i]), "+f"(d[i + 1]), "+f"(d[i + 2]), "+f"(d[i + 3]), "+f"(d[i + 4]), "+f"(d[i + 5]), "+f"(d[i + 6]), "+f"(d[i + 7])
#define HADAL_F64(i) HADAL_F8(i), HADAL_F8(i + 8), HADAL_F8(i + 16), HADAL_F8(i + 24), HADAL_F8(i + 32), HADAL_F8(i + 40), HADAL_F8(i + 48), HADAL_F8(i + 56)
#define HADAL_NAMES_0_63                                                                                                          \
  "%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, %15, %16, %17, %18, %19, %20, %21, %22, %23, %24, %25, %26, " \
  "%27, %28, %29, %30, %31, %32, %33, %34, %35, %36, %37, %38, %39, %40, %41, %42, %43, %44, %45, %46, %47, %48, %49, %50, %51, " \
  "%52, %53, %54, %55, %56, %57, %58, %59, %60, %61, %62, %63"
#define HADAL_NAMES_64_119                                                                                                      \
  "%64, %65, %66, %67, %68, %69, %70, %71, %72, %73, %74, %75, %76, %77, %78, %79, %80, %81, %82, %83, %84, %85, %86, %87, "    \
  "%88, %89, %90, %91, %92, %93, %94, %95, %96, %97, %98, %99, %100, %101, %102, %103, %104, %105, %106, %107, %108, %109, "    \
  "%110, %111, %112, %113, %114, %115, %116, %117, %118, %119"
#define HADAL_NAMES_64_127                                                                                                      \
  "%64, %65, %66, %67, %68, %69, %70, %71, %72, %73, %74, %75, %76, %77, %78, %79, %80, %81, %82, %83, %84, %85, %86, %87, "    \
  "%88, %89, %90, %91, %92, %93, %94, %95, %96, %97, %98, %99, %100, %101, %102, %103, %104, %105, %106, %107, %108, %109, "    \
  "%110, %111, %112, %113, %114, %115, %116, %117, %118, %119, %120, %121, %122, %123, %124, %125, %126, %127"

/// d (+)= a b^T for 64 rows of a, 256, 240 or 128 of b, 16 of k, bf16 with f32 sums; `keep` 0: d is overwritten. kMajorM, kMajorN: k is not
/// the fast index of a, of b. Sums of a thread of warp w, lane l: d[4 j + 2 h + i] is row 16 w + l / 4 + 8 h, column
/// 8 j + 2 (l % 4) + i.
template <bool kMajorM, bool kMajorN>
__device__ inline void product_step(float (&d)[128], std::uint64_t a, std::uint64_t b, int keep) {
  asm volatile("{\n.reg .pred p;\nsetp.ne.b32 p, %130, 0;\nwgmma.mma_async.sync.aligned.m64n256k16.f32.bf16.bf16 {" HADAL_NAMES_0_63
               ", " HADAL_NAMES_64_127 "}, %128, %129, p, 1, 1, %131, %132;\n}\n"
               : HADAL_F64(0), HADAL_F64(64)
               : "l"(a), "l"(b), "r"(keep), "n"(kMajorM ? 1 : 0), "n"(kMajorN ? 1 : 0));
}
template <bool kMajorM, bool kMajorN>
__device__ inline void product_step(float (&d)[120], std::uint64_t a, std::uint64_t b, int keep) {
  asm volatile("{\n.reg .pred p;\nsetp.ne.b32 p, %122, 0;\nwgmma.mma_async.sync.aligned.m64n240k16.f32.bf16.bf16 {" HADAL_NAMES_0_63
               ", " HADAL_NAMES_64_119 "}, %120, %121, p, 1, 1, %123, %124;\n}\n"
               : HADAL_F64(0), HADAL_F8(64), HADAL_F8(72), HADAL_F8(80), HADAL_F8(88), HADAL_F8(96), HADAL_F8(104), HADAL_F8(112)
               : "l"(a), "l"(b), "r"(keep), "n"(kMajorM ? 1 : 0), "n"(kMajorN ? 1 : 0));
}
template <bool kMajorM, bool kMajorN>
__device__ inline void product_step(float (&d)[64], std::uint64_t a, std::uint64_t b, int keep) {
  asm volatile("{\n.reg .pred p;\nsetp.ne.b32 p, %66, 0;\nwgmma.mma_async.sync.aligned.m64n128k16.f32.bf16.bf16 {" HADAL_NAMES_0_63
               "}, %64, %65, p, 1, 1, %67, %68;\n}\n"
               : HADAL_F64(0)
               : "l"(a), "l"(b), "r"(keep), "n"(kMajorM ? 1 : 0), "n"(kMajorN ? 1 : 0));
}

#undef HADAL_F8
#undef HADAL_F64
#undef HADAL_NAMES_0_63
#undef HADAL_NAMES_64_119
#undef HADAL_NAMES_64_127

/// Four 8 x 8 matrices of bf16 from registers (as sums are spread over lanes) to shared memory; each lane names a line of 16 bytes.
__device__ inline void store_matrices(void* line, std::uint32_t a, std::uint32_t b, std::uint32_t c, std::uint32_t d) {
  asm volatile("stmatrix.sync.aligned.m8n8.x4.shared.b16 [%0], {%1, %2, %3, %4};" ::"r"(shared_address(line)), "r"(a), "r"(b), "r"(c), "r"(d) : "memory");
}

}  // namespace hadal::kernels::cuda
