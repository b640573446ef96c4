/* Preloaded: one call of the C library fails below one directory, as on a mount that does not have it.
   REFUSED_CALL is its name, REFUSED_ERRNO the number, REFUSED_BELOW the directory. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <stdio.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <sys/types.h>
#include <unistd.h>

static int refused_path(const char *call, const char *path)
{
    const char *wanted = getenv("REFUSED_CALL"), *below = getenv("REFUSED_BELOW");
    if (!wanted || !below || !path || strcmp(call, wanted) || strncmp(path, below, strlen(below)))
        return 0;
    errno = atoi(getenv("REFUSED_ERRNO"));
    return 1;
}

static int refused_file(const char *call, int descriptor)
{
    char link[32], path[4096];
    snprintf(link, sizeof link, "/proc/self/fd/%d", descriptor);
    ssize_t length = readlink(link, path, sizeof path - 1);
    if (length < 0)
        return 0;
    path[length] = 0;
    return refused_path(call, path);
}

#define REAL(name, ...) ((__typeof__(&name))dlsym(RTLD_NEXT, #name))(__VA_ARGS__)

int flock(int file, int operation) { return refused_file("flock", file) ? -1 : REAL(flock, file, operation); }
int fsync(int file) { return refused_file("fsync", file) ? -1 : REAL(fsync, file); }
int fchmod(int file, mode_t mode) { return refused_file("chmod", file) ? -1 : REAL(fchmod, file, mode); }
int unlink(const char *path) { return refused_path("unlink", path) ? -1 : REAL(unlink, path); }
int rename(const char *from, const char *to) { return refused_path("rename", to) ? -1 : REAL(rename, from, to); }

int statvfs(const char *path, struct statvfs *found)
{
    return refused_path("statvfs", path) ? -1 : REAL(statvfs, path, found);
}

int statvfs64(const char *path, struct statvfs64 *found)
{
    return refused_path("statvfs", path) ? -1 : REAL(statvfs64, path, found);
}

void *mmap64(void *at, size_t size, int protection, int flags, int file, off64_t offset)
{
    if (file >= 0 && refused_file("mmap", file))
        return MAP_FAILED;
    return REAL(mmap64, at, size, protection, flags, file, offset);
}

int open64(const char *path, int flags, ...)
{
    va_list rest;
    va_start(rest, flags);
    mode_t mode = va_arg(rest, mode_t);
    va_end(rest);
    if ((flags & O_APPEND && refused_path("append", path)) || (flags & O_CREAT && refused_path("write", path)))
        return -1;
    return REAL(open64, path, flags, mode);
}
