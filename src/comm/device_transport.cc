#include "comm/device_transport.h"

namespace hadal::comm {
namespace {

constinit const DeviceTransportBackend* g_backend = nullptr;

}  // namespace

RegisterDeviceTransport::RegisterDeviceTransport(const DeviceTransportBackend& backend) { g_backend = &backend; }

const DeviceTransportBackend* device_transport_backend() { return g_backend; }

std::string device_transport_failure() { return g_backend == nullptr ? std::string() : g_backend->failure(); }

}  // namespace hadal::comm
