#include "functions/dispatcher/clock_anchor.h"

#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "base/clock.h"

#define LINE_MAX_BYTES 256

/* At most `max` bytes, NUL-terminated; 0: not there. */
static size_t read_text(const char *path, char *ret_text, size_t max)
{
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NOFOLLOW);
    ssize_t n = fd >= 0 ? read(fd, ret_text, max) : 0;
    if (fd >= 0) (void)close(fd);
    ret_text[n > 0 ? n : 0] = '\0';
    return n > 0 ? (size_t)n : 0;
}

/* Uptime with the time asleep: CLOCK_MONOTONIC stands still then, and the wall clock does not. */
static int64_t uptime_ns(void)
{
    struct timespec t;
    int failed = clock_gettime(CLOCK_BOOTTIME, &t);
    assert(failed == 0);
    (void)failed;
    return (int64_t)t.tv_sec * NS_PER_S + t.tv_nsec;
}

void clock_anchor_look(struct clock_anchor *ret_anchor)
{
    *ret_anchor = (struct clock_anchor){.offset_ns = clock_unix_ns() - uptime_ns()};
    ret_anchor->before_ns = ret_anchor->offset_ns;
    clock_boot_id(ret_anchor->boot_id);
}

static void path_of(const char *dir, const char *name, char ret_path[4096])
{
    (void)snprintf(ret_path, 4096, "%s/%s", dir, name);
}

/* "name=" at the front of the next word; ret_value is what stands behind it. */
static bool take(struct strview *line, struct strview name, struct strview *ret_value)
{
    struct strview word;
    if (!sv_next(line, ' ', &word) || !sv_starts_with(word, name)) return false;
    *ret_value = sv_sub(word, name.len, word.len);
    return true;
}

static bool read_line(struct strview line, struct clock_anchor *a)
{
    struct strview boot, offset, before, seq;
    if (!take(&line, SV("boot="), &boot) || !take(&line, SV("offset_ns="), &offset) ||
        !take(&line, SV("before_ns="), &before) || !take(&line, SV("seq="), &seq) ||
        boot.len > CLOCK_BOOT_ID_MAX)
        return false;
    (void)snprintf(a->boot_id, sizeof(a->boot_id), "%.*s", SV_ARG(boot));
    return sv_parse_i64(offset, &a->offset_ns) == STATUS_OK &&
           sv_parse_i64(before, &a->before_ns) == STATUS_OK &&
           sv_parse_u64(sv_trim(seq), &a->seq) == STATUS_OK;
}

enum status clock_anchor_read(const char *dir, struct clock_anchor *ret_anchor)
{
    char path[4096], text[LINE_MAX_BYTES + 1];
    struct clock_anchor now, a = {.seq = 0};
    path_of(dir, "run/clock", path);
    (void)read_text(path, text, LINE_MAX_BYTES);
    clock_anchor_look(&now);
    if (!read_line(sv(text), &a) || now.boot_id[0] == '\0' || strcmp(a.boot_id, now.boot_id) != 0)
        return STATUS_NOT_FOUND;
    *ret_anchor = a;
    return STATUS_OK;
}

enum status clock_anchor_write(const char *dir, const struct clock_anchor *a, struct error *err)
{
    char path[4096], fresh[4096], text[LINE_MAX_BYTES];
    if (a->boot_id[0] == '\0') return STATUS_OK; /* nobody could tell whether it says anything */
    path_of(dir, "run/clock", path);
    path_of(dir, "run/.clock.new", fresh);
    int n =
        snprintf(text, sizeof(text), "boot=%s offset_ns=%" PRId64 " before_ns=%" PRId64 " seq=%" PRIu64 "\n",
                 a->boot_id, a->offset_ns, a->before_ns, a->seq);
    int fd = open(fresh, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC | O_NOFOLLOW, 0600);
    ssize_t written = fd >= 0 ? write(fd, text, (size_t)n) : -1;
    int failed = errno;
    if (fd >= 0) (void)close(fd);
    if (written == n && rename(fresh, path) == 0) return STATUS_OK;
    if (written == n) failed = errno;
    return error_set(err, status_from_errno(failed), "write %s: %s", path,
                     written >= 0 && written < n ? "disk is full" : strerror(failed));
}
