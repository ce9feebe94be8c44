// SPDX-License-Identifier: Apache-2.0
// A wall clock that jumps an hour forth and back, a few times a second, in every process that preloads this:
//     cc -shared -fPIC -o jumping.so jumping.c; LD_PRELOAD=$PWD/jumping.so python ...
// The jumps follow from the clock that does not jump, so that all processes of a machine see them at the same moment.

#define _GNU_SOURCE
#include <sys/syscall.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

static const long JUMPS[] = {0, 3600, 0, -3600};

static int ask(clockid_t clock, struct timespec *now) { return (int)syscall(SYS_clock_gettime, clock, now); }

static long jump(void) {
    struct timespec now;
    ask(CLOCK_MONOTONIC, &now);
    return JUMPS[(now.tv_sec * 4 + now.tv_nsec / 250000000) % 4];
}

int clock_gettime(clockid_t clock, struct timespec *now) {
    int failed = ask(clock, now);
    if (!failed && (clock == CLOCK_REALTIME || clock == CLOCK_REALTIME_COARSE)) now->tv_sec += jump();
    return failed;
}

int gettimeofday(struct timeval *restrict now, void *restrict zone) {
    (void)zone;
    struct timespec exact;
    int failed = clock_gettime(CLOCK_REALTIME, &exact);
    now->tv_sec = exact.tv_sec;
    now->tv_usec = exact.tv_nsec / 1000;
    return failed;
}

time_t time(time_t *where) {
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    if (where) *where = now.tv_sec;
    return now.tv_sec;
}
