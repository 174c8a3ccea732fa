// Memory of the fake device (fake_cuda.h) travels between the ranks of a process in the order of the device's work, as with NCCL: the host
// waits for the device nowhere.
#pragma once

namespace hadal::test {

/// What parallel.device_transport nccl means from here on, in this process. After use_fake_cuda().
void use_fake_device_transport();

}  // namespace hadal::test
