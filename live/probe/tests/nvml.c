/* A library that stands in for NVIDIA's, for live/probe/tests/telemetry.rs: COUNT GPUs, of which the
 * first tells everything and the others their name alone. Signatures as in nvml.h. */

#include <stdio.h>

typedef struct { unsigned int version; unsigned long long total, reserved, free, used; } memory_v2;
typedef struct { unsigned int gpu, memory; } utilization;

enum { SUCCESS = 0, INVALID_ARGUMENT = 2, NOT_SUPPORTED = 3 };
enum { GRAPHICS = 0, SM = 1, MEMORY = 2 };

static int gpus[8] = {0, 1, 2, 3, 4, 5, 6, 7};

int nvmlInit_v2(void) { return SUCCESS; }
int nvmlShutdown(void) { return SUCCESS; }

int nvmlDeviceGetCount_v2(unsigned int *count) {
    *count = COUNT;
    return SUCCESS;
}

int nvmlDeviceGetHandleByIndex_v2(unsigned int index, void **device) {
    if (index >= COUNT) return INVALID_ARGUMENT;
    *device = &gpus[index];
    return SUCCESS;
}

int nvmlDeviceGetName(void *device, char *name, unsigned int length) {
    snprintf(name, length, "Stand-in %d", *(int *)device);
    return SUCCESS;
}

#define FIRST_ALONE if (*(int *)device != 0) return NOT_SUPPORTED

int nvmlDeviceGetMemoryInfo_v2(void *device, memory_v2 *memory) {
    FIRST_ALONE;
    memory->total = 80ull << 30;
    memory->used = 24ull << 30;
    return SUCCESS;
}

int nvmlDeviceGetEnforcedPowerLimit(void *device, unsigned int *milliwatts) {
    FIRST_ALONE;
    *milliwatts = 700000;
    return SUCCESS;
}

int nvmlDeviceGetUtilizationRates(void *device, utilization *rates) {
    FIRST_ALONE;
    rates->gpu = 93;
    rates->memory = 40;
    return SUCCESS;
}

int nvmlDeviceGetPowerUsage(void *device, unsigned int *milliwatts) {
    FIRST_ALONE;
    *milliwatts = 412500;
    return SUCCESS;
}

int nvmlDeviceGetClockInfo(void *device, unsigned int clock, unsigned int *megahertz) {
    FIRST_ALONE;
    *megahertz = clock == SM ? 1410 : clock == MEMORY ? 2619 : 1;
    return SUCCESS;
}

int nvmlDeviceGetCurrentClocksThrottleReasons(void *device, unsigned long long *reasons) {
    FIRST_ALONE;
    *reasons = 0x1 | 0x4 | 0x40; /* idle, power cap, heat by the hardware */
    return SUCCESS;
}
