/* Loaded by LD_PRELOAD: has reads and writes of files whose path contains FAULT_PATH fail, or come short.

   FAULT_READ, FAULT_WRITE: number of the error (errno) with which they fail; 0 or unset: they do not.
   FAULT_AFTER: bytes that are read or written of a file before it fails.
   FAULT_SHORT: most bytes that one read returns. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/types.h>
#include <unistd.h>

static long number(const char *name) {
    const char *text = getenv(name);
    return text ? atol(text) : 0;
}

static int concerned(int file) {
    char link[64], path[4096];
    const char *part = getenv("FAULT_PATH");
    snprintf(link, sizeof link, "/proc/self/fd/%d", file);
    ssize_t length = readlink(link, path, sizeof path - 1);
    if (!part || length < 0) return 0;
    path[length] = 0;
    return strstr(path, part) != NULL;
}

/* The bytes that may still be read or written from `start` on; -1 when the call is to fail. */
static ssize_t allowed(int file, const char *fault, size_t size, off64_t start) {
    if (!concerned(file)) return size;
    long error = number(fault), limit = number("FAULT_SHORT");
    long left = number("FAULT_AFTER") - start;
    if (error && left <= 0) {
        errno = error;
        return -1;
    }
    if (error && (size_t)left < size) size = left;
    return limit && !strcmp(fault, "FAULT_READ") && (size_t)limit < size ? limit : (ssize_t)size;
}

#define REAL(name) __typeof__(&name) real = (__typeof__(&name))dlsym(RTLD_NEXT, #name)

ssize_t read(int file, void *data, size_t size) {
    REAL(read);
    ssize_t part = allowed(file, "FAULT_READ", size, lseek64(file, 0, SEEK_CUR));
    return part < 0 ? -1 : real(file, data, part);
}

ssize_t pread64(int file, void *data, size_t size, off64_t start) {
    REAL(pread64);
    ssize_t part = allowed(file, "FAULT_READ", size, start);
    return part < 0 ? -1 : real(file, data, part, start);
}

ssize_t pread(int file, void *data, size_t size, off_t start) { return pread64(file, data, size, start); }

ssize_t write(int file, const void *data, size_t size) {
    REAL(write);
    ssize_t part = allowed(file, "FAULT_WRITE", size, lseek64(file, 0, SEEK_CUR));
    return part < 0 ? -1 : real(file, data, part);
}
