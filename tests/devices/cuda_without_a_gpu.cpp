// Makes a torch that is built for CPUs take `cuda` for a device that is there: one device, one stream, events that have always happened.
// It computes nothing. That is done by tensors without values (torch's fake tensors), or by those of second.py.
#include <ATen/detail/CUDAHooksInterface.h>
#include <c10/core/CPUAllocator.h>
#include <c10/core/impl/DeviceGuardImplInterface.h>

#include <mutex>
#include <unordered_set>

namespace {

std::mutex pinned_mutex;
std::unordered_set<void*> pinned;  // beginnings of memory that was asked for as pinned

void free_pinned(void* memory) {
    {
        const std::lock_guard<std::mutex> lock(pinned_mutex);
        pinned.erase(memory);
    }
    c10::GetCPUAllocator()->raw_deallocate(memory);
}

struct PinnedAllocator final : c10::Allocator {
    c10::DataPtr allocate(size_t bytes) override {
        void* memory = c10::GetCPUAllocator()->raw_allocate(bytes);
        const std::lock_guard<std::mutex> lock(pinned_mutex);
        pinned.insert(memory);
        return {memory, memory, &free_pinned, c10::Device(c10::DeviceType::CPU)};
    }
    c10::DeleterFnPtr raw_deleter() const override { return &free_pinned; }
    void copy_data(void* target, const void* source, std::size_t bytes) const override {
        default_copy_data(target, source, bytes);
    }
};

struct OneDevice final : c10::impl::NoOpDeviceGuardImpl<c10::DeviceType::CUDA> {
    static c10::Device device() { return {c10::DeviceType::CUDA, 0}; }
    static c10::Stream stream() { return c10::Stream(c10::Stream::DEFAULT, device()); }
    c10::Device exchangeDevice(c10::Device) const override { return device(); }
    c10::Device getDevice() const override { return device(); }
    c10::Stream getStream(c10::Device) const noexcept override { return stream(); }
    c10::Stream getDefaultStream(c10::Device) const override { return stream(); }
    c10::Stream exchangeStream(c10::Stream) const noexcept override { return stream(); }
    void record(void**, const c10::Stream&, const c10::DeviceIndex, const c10::EventFlag) const override {}
    void block(void*, const c10::Stream&) const override {}
    bool queryEvent(void*) const override { return true; }
};
C10_REGISTER_GUARD_IMPL(CUDA, OneDevice);

}  // namespace

namespace at {

struct CUDAHooks final : CUDAHooksInterface {  // torch looks for this name
    explicit CUDAHooks(CUDAHooksArgs) {}
    void init() const override {}
    bool hasCUDA() const override { return true; }
    bool isBuilt() const override { return true; }
    bool isAvailable() const override { return true; }
    bool hasPrimaryContext(DeviceIndex) const override { return true; }
    DeviceIndex deviceCount() const override { return 1; }
    DeviceIndex getCurrentDevice() const override { return 0; }
    bool isPinnedPtr(const void* memory) const override {
        const std::lock_guard<std::mutex> lock(pinned_mutex);
        return pinned.count(const_cast<void*>(memory)) > 0;
    }
    Allocator* getPinnedMemoryAllocator() const override {
        static PinnedAllocator allocator;
        return &allocator;
    }
};
REGISTER_CUDA_HOOKS(CUDAHooks)

}  // namespace at
