/* A power switch for tests, preloaded into a process that runs a store.
 *
 * It numbers every write, truncation, rename, unlink and fsync under CRASH_DIR, notes each in CRASH_LOG, and at number CRASH_AT does
 * half of the write (or nothing of the rest) and ends the process. From the notes the test knows, for each file, what was fsynced.
 *
 *   W inode offset length     S inode size     T inode size     U inode     D folder     R saved-target-or-- \t from \t to
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <unistd.h>

static pthread_mutex_t turn = PTHREAD_MUTEX_INITIALIZER;
static const char *folder, *saved;
static long events, crash_at = -1;
static int notes = -1;

#define REAL(type, name, ...) ((type (*)(__VA_ARGS__))dlsym(RTLD_NEXT, #name))

__attribute__((constructor)) static void setup(void) {
    const char *log = getenv("CRASH_LOG"), *at = getenv("CRASH_AT");
    folder = getenv("CRASH_DIR");
    saved = getenv("CRASH_SAVED");
    if (!folder || !saved || !log) { folder = NULL; return; }
    crash_at = at ? atol(at) : -1;
    notes = open(log, O_CREAT | O_WRONLY | O_APPEND, 0600);
}

static int under(const char *path) { return folder && path && !strncmp(path, folder, strlen(folder)); }

static int watched(int fd, struct stat *st) {
    char link[64], path[4096];
    if (!folder || fd == notes || fstat(fd, st)) return 0;
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    ssize_t n = readlink(link, path, sizeof path - 1);
    if (n <= 0) return 0;
    path[n] = 0;
    return under(path);
}

static void note(const char *line) {
    if (REAL(ssize_t, write, int, const void *, size_t)(notes, line, strlen(line)) < 0) _exit(78);
}

/* Counts an event; true where the power goes off now. */
static int off(void) { return ++events == crash_at; }

static ssize_t put(int fd, const void *bytes, size_t len, off_t at, int placed) {
    ssize_t (*at_end)(int, const void *, size_t) = REAL(ssize_t, write, int, const void *, size_t);
    ssize_t (*at_place)(int, const void *, size_t, off_t) = REAL(ssize_t, pwrite, int, const void *, size_t, off_t);
    struct stat st;
    if (!watched(fd, &st) || !S_ISREG(st.st_mode)) return placed ? at_place(fd, bytes, len, at) : at_end(fd, bytes, len);
    pthread_mutex_lock(&turn);
    int last = off();
    size_t now = last ? len / 2 : len;
    fstat(fd, &st);
    if (!placed) at = fcntl(fd, F_GETFL) & O_APPEND ? st.st_size : lseek(fd, 0, SEEK_CUR);
    ssize_t done = placed ? at_place(fd, bytes, now, at) : at_end(fd, bytes, now);
    char line[128];
    snprintf(line, sizeof line, "W %lu %ld %ld\n", (unsigned long)st.st_ino, (long)at, (long)(done < 0 ? 0 : done));
    note(line);
    if (last) _exit(77);
    pthread_mutex_unlock(&turn);
    return done;
}

ssize_t write(int fd, const void *bytes, size_t len) { return put(fd, bytes, len, 0, 0); }
ssize_t pwrite(int fd, const void *bytes, size_t len, off_t at) { return put(fd, bytes, len, at, 1); }
ssize_t pwrite64(int fd, const void *bytes, size_t len, off_t at) { return put(fd, bytes, len, at, 1); }

ssize_t writev(int fd, const struct iovec *parts, int count) {
    struct stat st;
    if (!watched(fd, &st) || !S_ISREG(st.st_mode)) return REAL(ssize_t, writev, int, const struct iovec *, int)(fd, parts, count);
    /* A short write is allowed: the caller comes again with the rest. */
    for (int i = 0; i < count; i++)
        if (parts[i].iov_len) return put(fd, parts[i].iov_base, parts[i].iov_len, 0, 0);
    return 0;
}

static int sync_with(int (*real)(int), int fd) {
    struct stat st;
    if (!watched(fd, &st)) return real(fd);
    pthread_mutex_lock(&turn);
    if (off()) _exit(77);
    int done = real(fd);
    fstat(fd, &st);
    char line[4200], link[64], path[4096];
    if (S_ISDIR(st.st_mode)) {
        snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
        ssize_t n = readlink(link, path, sizeof path - 1);
        path[n < 0 ? 0 : n] = 0;
        snprintf(line, sizeof line, "D %s\n", path);
    } else {
        snprintf(line, sizeof line, "S %lu %ld\n", (unsigned long)st.st_ino, (long)st.st_size);
    }
    note(line);
    pthread_mutex_unlock(&turn);
    return done;
}

int fsync(int fd) { return sync_with(REAL(int, fsync, int), fd); }
int fdatasync(int fd) { return sync_with(REAL(int, fdatasync, int), fd); }

static int cut(int fd, off_t len) {
    int (*real)(int, off_t) = REAL(int, ftruncate, int, off_t);
    struct stat st;
    if (!watched(fd, &st)) return real(fd, len);
    pthread_mutex_lock(&turn);
    if (off()) _exit(77);
    int done = real(fd, len);
    char line[128];
    snprintf(line, sizeof line, "T %lu %ld\n", (unsigned long)st.st_ino, (long)len);
    note(line);
    pthread_mutex_unlock(&turn);
    return done;
}

int ftruncate(int fd, off_t len) { return cut(fd, len); }
int ftruncate64(int fd, off_t len) { return cut(fd, len); }

int rename(const char *from, const char *to) {
    int (*real)(const char *, const char *) = REAL(int, rename, const char *, const char *);
    if (!under(to)) return real(from, to);
    pthread_mutex_lock(&turn);
    if (off()) _exit(77);
    char keep[4096], line[13000];
    snprintf(keep, sizeof keep, "%s/%ld", saved, events);
    int kept = !link(to, keep);
    int done = real(from, to);
    snprintf(line, sizeof line, "R %s\t%s\t%s\n", kept ? keep : "-", from, to);
    note(line);
    pthread_mutex_unlock(&turn);
    return done;
}

int unlink(const char *path) {
    int (*real)(const char *) = REAL(int, unlink, const char *);
    struct stat st;
    if (!under(path) || stat(path, &st)) return real(path);
    pthread_mutex_lock(&turn);
    if (off()) _exit(77);
    int done = real(path);
    char line[128];
    snprintf(line, sizeof line, "U %lu\n", (unsigned long)st.st_ino);
    note(line);
    pthread_mutex_unlock(&turn);
    return done;
}
