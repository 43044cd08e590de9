/* Counts the calls that change files under one folder, and kills the process at the one that is wanted.
 *
 * Preloaded (LD_PRELOAD) into a process that forks; `torture_arm` is called in each fork. Until then, and for every
 * other file, it only passes calls on. What stdio writes inside of glibc is counted where it is requested: at fwrite,
 * fflush and fclose.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <fcntl.h>
#include <signal.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <sys/sendfile.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/types.h>
#include <sys/uio.h>
#include <unistd.h>

#define MAX_FILES 65536

static char folder[4096];
static size_t folder_length;
static long fatal;     /* the number of the call before which the process is killed; 0: none */
static int torn;       /* whether half of what that call would write is written */
static int journal = -1;
static atomic_long calls;
static unsigned char watched[MAX_FILES];

void torture_arm(const char *path, long number, int half, int descriptor)
{
    strncpy(folder, path, sizeof folder - 1);
    fatal = number;
    torn = half;
    journal = descriptor;
    folder_length = strlen(folder);
}

#define REAL(type, name, ...) \
    static type (*real)(__VA_ARGS__); \
    if (!real) real = (type (*)(__VA_ARGS__))dlsym(RTLD_NEXT, #name)

static void die(void) { syscall(SYS_kill, syscall(SYS_getpid), SIGKILL); for (;;) pause(); }

/* Count a call; says whether it is the fatal one. */
static int is_fatal(const char *name, const char *path)
{
    char line[4200];
    long number = atomic_fetch_add(&calls, 1) + 1;
    if (journal >= 0) {
        int length = snprintf(line, sizeof line, "%ld %s %s\n", number, name, path ? path : "");
        syscall(SYS_write, journal, line, length);
    }
    return number == fatal;
}

static void count(const char *name, const char *path) { if (is_fatal(name, path)) die(); }

static int ours(const char *path)
{
    return folder_length && path && !strncmp(path, folder, folder_length);
}

static int is_watched(int fd) { return folder_length && fd >= 0 && fd < MAX_FILES && watched[fd]; }

static int ours_at(int dir, const char *path)
{
    return ours(path) || (path && path[0] != '/' && is_watched(dir));
}

static int watch(int fd, int yes)
{
    if (fd >= 0 && fd < MAX_FILES) watched[fd] = (unsigned char)yes;
    return fd;
}

static int changes(int flags) { return (flags & O_ACCMODE) != O_RDONLY || (flags & (O_CREAT | O_TRUNC)); }

#define MODE_OF(flags) \
    mode_t mode = 0; \
    if ((flags) & (O_CREAT | O_TMPFILE)) { va_list rest; va_start(rest, flags); mode = va_arg(rest, mode_t); va_end(rest); }

#define OPEN(name) \
    int name(const char *path, int flags, ...) \
    { \
        MODE_OF(flags) \
        REAL(int, name, const char *, int, mode_t); \
        if (!ours(path)) return watch(real(path, flags, mode), 0); \
        if (changes(flags)) count(#name, path); \
        return watch(real(path, flags, mode), 1); \
    }
OPEN(open)
OPEN(open64)

#define OPENAT(name) \
    int name(int dir, const char *path, int flags, ...) \
    { \
        MODE_OF(flags) \
        REAL(int, name, int, const char *, int, mode_t); \
        if (!ours_at(dir, path)) return watch(real(dir, path, flags, mode), 0); \
        if (changes(flags)) count(#name, path); \
        return watch(real(dir, path, flags, mode), 1); \
    }
OPENAT(openat)
OPENAT(openat64)

#define FOPEN(name) \
    FILE *name(const char *path, const char *mode) \
    { \
        REAL(FILE *, name, const char *, const char *); \
        int mine = ours(path); \
        if (mine && strpbrk(mode, "wa+")) count(#name, path); \
        FILE *file = real(path, mode); \
        if (file) watch(fileno(file), mine); \
        return file; \
    }
FOPEN(fopen)
FOPEN(fopen64)

int dup2(int from, int to)
{
    REAL(int, dup2, int, int);
    int yes = is_watched(from);
    return watch(real(from, to), yes);
}

size_t fwrite(const void *data, size_t size, size_t items, FILE *file)
{
    REAL(size_t, fwrite, const void *, size_t, size_t, FILE *);
    if (is_watched(fileno(file)) && is_fatal("fwrite", NULL)) {
        if (torn) {
            fflush(file);
            syscall(SYS_pwrite64, fileno(file), data, size * items / 2, ftello(file));
        }
        die();
    }
    return real(data, size, items, file);
}

int fflush(FILE *file)
{
    REAL(int, fflush, FILE *);
    if (file && is_watched(fileno(file))) count("fflush", NULL);
    return real(file);
}

int fclose(FILE *file)
{
    REAL(int, fclose, FILE *);
    int fd = fileno(file);
    if (is_watched(fd)) count("fclose", NULL);
    watch(fd, 0);
    return real(file);
}

int close(int fd)
{
    REAL(int, close, int);
    watch(fd, 0);
    return real(fd);
}

#define WRITE(name, parameters, given, half) \
    ssize_t name parameters \
    { \
        REAL(ssize_t, name, __VA_UNPACK parameters); \
        if (is_watched(fd) && is_fatal(#name, NULL)) { if (torn) { half; } die(); } \
        return real given; \
    }
#define __VA_UNPACK(...) __VA_ARGS__
WRITE(write, (int fd, const void *data, size_t size), (fd, data, size), syscall(SYS_write, fd, data, size / 2))
WRITE(pwrite, (int fd, const void *data, size_t size, off_t at), (fd, data, size, at),
      syscall(SYS_pwrite64, fd, data, size / 2, at))
WRITE(pwrite64, (int fd, const void *data, size_t size, off_t at), (fd, data, size, at),
      syscall(SYS_pwrite64, fd, data, size / 2, at))
WRITE(writev, (int fd, const struct iovec *data, int parts), (fd, data, parts), syscall(SYS_writev, fd, data, parts / 2))
WRITE(pwritev, (int fd, const struct iovec *data, int parts, off_t at), (fd, data, parts, at), (void)0)
WRITE(sendfile, (int fd, int from, off_t *at, size_t size), (fd, from, at, size), real(fd, from, at, size / 2))
WRITE(sendfile64, (int fd, int from, off_t *at, size_t size), (fd, from, at, size), real(fd, from, at, size / 2))

ssize_t copy_file_range(int from, off_t *from_at, int fd, off_t *at, size_t size, unsigned flags)
{
    REAL(ssize_t, copy_file_range, int, off_t *, int, off_t *, size_t, unsigned);
    if (is_watched(fd) && is_fatal("copy_file_range", NULL)) {
        if (torn) real(from, from_at, fd, at, size / 2, flags);
        die();
    }
    return real(from, from_at, fd, at, size, flags);
}

#define ON_FD(name, parameters, given) \
    int name parameters \
    { \
        REAL(int, name, __VA_UNPACK parameters); \
        if (is_watched(fd)) count(#name, NULL); \
        return real given; \
    }
ON_FD(fsync, (int fd), (fd))
ON_FD(fdatasync, (int fd), (fd))
ON_FD(ftruncate, (int fd, off_t size), (fd, size))
ON_FD(ftruncate64, (int fd, off_t size), (fd, size))
ON_FD(fallocate, (int fd, int mode, off_t at, off_t size), (fd, mode, at, size))
ON_FD(fallocate64, (int fd, int mode, off_t at, off_t size), (fd, mode, at, size))
ON_FD(posix_fallocate, (int fd, off_t at, off_t size), (fd, at, size))
ON_FD(posix_fallocate64, (int fd, off_t at, off_t size), (fd, at, size))

#define ON_PATH(name, parameters, given) \
    int name parameters \
    { \
        REAL(int, name, __VA_UNPACK parameters); \
        if (ours(path)) count(#name, path); \
        return real given; \
    }
ON_PATH(unlink, (const char *path), (path))
ON_PATH(remove, (const char *path), (path))
ON_PATH(rmdir, (const char *path), (path))
ON_PATH(mkdir, (const char *path, mode_t mode), (path, mode))
ON_PATH(truncate, (const char *path, off_t size), (path, size))
ON_PATH(truncate64, (const char *path, off_t size), (path, size))
ON_PATH(rename, (const char *path, const char *to), (path, to))
ON_PATH(link, (const char *path, const char *to), (path, to))

int unlinkat(int dir, const char *path, int flags)
{
    REAL(int, unlinkat, int, const char *, int);
    if (ours_at(dir, path)) count("unlinkat", path);
    return real(dir, path, flags);
}

int mkdirat(int dir, const char *path, mode_t mode)
{
    REAL(int, mkdirat, int, const char *, mode_t);
    if (ours_at(dir, path)) count("mkdirat", path);
    return real(dir, path, mode);
}

int renameat(int dir, const char *path, int to_dir, const char *to)
{
    REAL(int, renameat, int, const char *, int, const char *);
    if (ours_at(dir, path)) count("renameat", path);
    return real(dir, path, to_dir, to);
}

int renameat2(int dir, const char *path, int to_dir, const char *to, unsigned flags)
{
    REAL(int, renameat2, int, const char *, int, const char *, unsigned);
    if (ours_at(dir, path)) count("renameat2", path);
    return real(dir, path, to_dir, to, flags);
}
