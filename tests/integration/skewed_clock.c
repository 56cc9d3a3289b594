/* A wrong clock: with LD_PRELOAD, a program's time of day is off by the seconds in the file SKEWED_CLOCK.
   The file may change at any time, as clocks are set. Steady clocks stay as they are. */

#define _GNU_SOURCE
#include <dlfcn.h>
#include <fcntl.h>
#include <linux/futex.h>
#include <pthread.h>
#include <semaphore.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

static volatile int64_t *seconds;

__attribute__((constructor)) static void begin(void) {
    const char *name = getenv("SKEWED_CLOCK");
    int file = name ? open(name, O_RDONLY | O_CLOEXEC) : -1;
    if (file < 0)
        return;
    void *found = mmap(NULL, sizeof(int64_t), PROT_READ, MAP_SHARED, file, 0);
    seconds = found == MAP_FAILED ? NULL : found;
    close(file);
}

static int64_t off(void) { return seconds ? *seconds : 0; }

int clock_gettime(clockid_t clock, struct timespec *now) {
    static int (*next)(clockid_t, struct timespec *);
    if (!next)
        next = dlsym(RTLD_NEXT, "clock_gettime");
    int failed = next(clock, now);
    if (!failed && (clock == CLOCK_REALTIME || clock == CLOCK_REALTIME_COARSE))
        now->tv_sec += off();
    return failed;
}

int gettimeofday(struct timeval *restrict told, void *restrict zone) {
    struct timespec now;
    (void)zone;
    clock_gettime(CLOCK_REALTIME, &now);
    told->tv_sec = now.tv_sec;
    told->tv_usec = now.tv_nsec / 1000;
    return 0;
}

time_t time(time_t *told) {
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    if (told)
        *told = now.tv_sec;
    return now.tv_sec;
}

int timespec_get(struct timespec *told, int base) {
    return base == TIME_UTC && !clock_gettime(CLOCK_REALTIME, told) ? base : 0;
}

/* Who waits until a time of day tells it to the kernel, whose clock is right. */

static struct timespec by_the_kernel(const struct timespec *until) {
    struct timespec moved = *until;
    moved.tv_sec -= off();
    return moved;
}

int pthread_cond_timedwait(
    pthread_cond_t *restrict on, pthread_mutex_t *restrict held, const struct timespec *restrict until) {
    static int (*next)(pthread_cond_t *, pthread_mutex_t *, const struct timespec *);
    if (!next)
        next = dlvsym(RTLD_NEXT, "pthread_cond_timedwait", "GLIBC_2.3.2");
    if (!next)
        next = dlsym(RTLD_NEXT, "pthread_cond_timedwait");
    struct timespec moved = by_the_kernel(until);
    return next(on, held, on->__data.__wrefs & 2 ? until : &moved); /* 2: glibc's mark of a steady clock */
}

int sem_timedwait(sem_t *restrict on, const struct timespec *restrict until) {
    static int (*next)(sem_t *, const struct timespec *);
    if (!next)
        next = dlsym(RTLD_NEXT, "sem_timedwait");
    struct timespec moved = by_the_kernel(until);
    return next(on, &moved);
}

long syscall(long number, ...) {
    static long (*next)(long, ...);
    if (!next)
        next = (long (*)(long, ...))dlsym(RTLD_NEXT, "syscall");
    va_list given;
    long a[6];
    va_start(given, number);
    for (int i = 0; i < 6; i++)
        a[i] = va_arg(given, long);
    va_end(given);
    struct timespec moved;
    if (number == SYS_futex && a[1] & FUTEX_CLOCK_REALTIME && a[3]) {
        moved = by_the_kernel((const struct timespec *)a[3]);
        a[3] = (long)&moved;
    }
    return next(number, a[0], a[1], a[2], a[3], a[4], a[5]);
}
