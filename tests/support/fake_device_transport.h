// What NCCL is to a real device, for the fake one (fake_cuda.h): `parallel.device_transport=nccl` then moves device memory between
// threads of this process, and the host's part in that is not among num_host_waits(). So what is counted is what the trainer waits for.
#pragma once

namespace hadal::test {

/// From here on, in this process. All ranks are on one device: without the key, memory is staged through the host, and counted.
void use_fake_device_transport();

}  // namespace hadal::test
