// An ExpertExchange that tells when its transfers start and finish, and may let them take time: tokens are there `travel` after they
// started, whoever waits earlier sleeps.
#pragma once

#include <chrono>
#include <memory>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "nn/moe/expert_exchange.h"

namespace hadal::test {

/// What happened, in order.
struct Watch {
  struct Event {
    std::string what;   ///< "start", "finish", or the name of a segment that begins
    std::string phase;  ///< of the list whose segment it belongs to
  };
  using Seconds = std::chrono::duration<double>;

  std::vector<Event> events;
  std::string phase;   ///< of the segment that runs
  Seconds travel{0};   ///< of each transfer
  Seconds travelled{0};
  Seconds exposed{0};  ///< of that, what was waited for

  void see(std::string what) { events.push_back({std::move(what), phase}); }
};

class WatchedRoute final : public nn::ExpertRoute {
 public:
  WatchedRoute(std::unique_ptr<nn::ExpertRoute> inner, Watch& watch) : inner_(std::move(inner)), watch_(watch) {}

  ConstView offsets() const override { return inner_->offsets(); }
  ConstView row_weight() const override { return inner_->row_weight(); }
  void start_dispatch(Stream& stream, ConstView x) override {
    inner_->start_dispatch(stream, x);
    start();
  }
  Tensor finish_dispatch(Stream& stream) override {
    finish();
    return inner_->finish_dispatch(stream);
  }
  void start_combine(Stream& stream, Tensor rows, Tensor row_scalars) override {
    inner_->start_combine(stream, std::move(rows), std::move(row_scalars));
    start();
  }
  void finish_combine(Stream& stream, ConstView base, View y, View pair_scalars) override {
    finish();
    inner_->finish_combine(stream, base, y, pair_scalars);
  }

 private:
  using Clock = std::chrono::steady_clock;

  void start() {
    watch_.see("start");
    arrival_ = Clock::now() + std::chrono::duration_cast<Clock::duration>(watch_.travel);
  }
  void finish() {
    watch_.see("finish");
    const Clock::time_point now = Clock::now();
    watch_.travelled += watch_.travel;
    if (now >= arrival_) return;
    watch_.exposed += arrival_ - now;
    std::this_thread::sleep_until(arrival_);
  }

  std::unique_ptr<nn::ExpertRoute> inner_;
  Watch& watch_;
  Clock::time_point arrival_;
};

class WatchedExchange final : public nn::ExpertExchange {
 public:
  WatchedExchange(std::shared_ptr<nn::ExpertExchange> inner, Watch& watch) : inner_(std::move(inner)), watch_(watch) {}
  std::unique_ptr<nn::ExpertRoute> route(Stream& stream, ConstView experts, ConstView weights) override {
    return std::make_unique<WatchedRoute>(inner_->route(stream, experts, weights), watch_);
  }

 private:
  std::shared_ptr<nn::ExpertExchange> inner_;
  Watch& watch_;
};

}  // namespace hadal::test
