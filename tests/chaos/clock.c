/* Loaded before the C library: the wall clock of this process is `ahead` seconds ahead, as after a step. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <linux/futex.h>
#include <pthread.h>
#include <stdarg.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <time.h>

#define NEXT(name) ((__typeof__(&name))dlsym(RTLD_NEXT, #name))
#define LATEST_UPTIME 1000000000 /* later moments are those of the wall clock */

static volatile long ahead;

void step_clock(long seconds) { ahead = seconds; }

int clock_gettime(clockid_t clock, struct timespec *now) {
    int failed = NEXT(clock_gettime)(clock, now);
    if (!failed && (clock == CLOCK_REALTIME || clock == CLOCK_REALTIME_COARSE)) now->tv_sec += ahead;
    return failed;
}

int gettimeofday(struct timeval *restrict now, void *restrict zone) {
    int failed = NEXT(gettimeofday)(now, zone);
    if (!failed) now->tv_sec += ahead;
    return failed;
}

time_t time(time_t *now) {
    time_t found = NEXT(time)(0) + ahead;
    if (now) *now = found;
    return found;
}

/* The kernel's clock does not step: what waits until a moment of ours waits until that of the kernel's. */
static struct timespec kernels(const struct timespec *until) {
    struct timespec found = *until;
    if (found.tv_sec > LATEST_UPTIME) found.tv_sec -= ahead;
    return found;
}

int pthread_cond_timedwait(pthread_cond_t *restrict condition, pthread_mutex_t *restrict mutex,
                           const struct timespec *restrict until) {
    struct timespec moment = kernels(until);
    return NEXT(pthread_cond_timedwait)(condition, mutex, &moment);
}

long syscall(long number, ...) {
    long a[6];
    va_list arguments;
    va_start(arguments, number);
    for (int k = 0; k < 6; k++) a[k] = va_arg(arguments, long);
    va_end(arguments);
    struct timespec moment;
    if (number == SYS_futex && (a[1] & FUTEX_CLOCK_REALTIME) && a[3]) {
        moment = kernels((struct timespec *)a[3]);
        a[3] = (long)&moment;
    }
    return NEXT(syscall)(number, a[0], a[1], a[2], a[3], a[4], a[5]);
}
