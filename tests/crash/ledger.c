/* An acting bot whose acts can be counted from outside: each appends a line when it begins and another when
 * it ends to the file named by ledger_file, and takes ledger_hold_ms in between.
 *
 *   begin|end MONOTONIC-NS INTENT TARGET
 *
 * One write() of O_APPEND a line, so lines stand in the order in which it all happened. Without ledger_file
 * it does nothing, at once. */
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/clock.h"
#include "function/function.h"
#include "loop/loop.h"

static enum status note(const struct invocation *inv, const char *word, struct error *err)
{
    const char *path = getenv("ledger_file");
    if (path == NULL) return STATUS_OK;
    struct strview line =
        arena_printf(inv->arena, "%s %lld %.*s %.*s\n", word, (long long)clock_monotonic_ns(),
                     SV_ARG(inv->intent), SV_ARG(inv->target));
    int fd = open(path, O_WRONLY | O_APPEND | O_CREAT | O_CLOEXEC, 0600);
    bool is_written = fd >= 0 && write(fd, line.ptr, line.len) == (ssize_t)line.len;
    if (fd >= 0) (void)close(fd);
    return is_written ? STATUS_OK : error_set(err, STATUS_INTERNAL, "cannot write to %s", path);
}

static enum status hold(void)
{
    const char *text = getenv("ledger_hold_ms");
    uint64_t ms = 0;
    if (text == NULL || sv_parse_u64(sv(text), &ms) != STATUS_OK || ms == 0) return STATUS_OK;
    return sleep_ms(ms);
}

static enum status handle(struct invocation *inv, const void *params, struct result *ret, struct error *err)
{
    (void)params;
    enum status s = invocation_check(inv, err);
    if (s == STATUS_OK) s = note(inv, "begin", err);
    if (s != STATUS_OK) return s;
    s = hold();
    if (s != STATUS_OK) return error_set(err, s, "cut short");
    s = note(inv, "end", err);
    return s == STATUS_OK ? result_done(ret, "written down") : s;
}

static const struct function_def ledger = {
    .name = "ledger",
    .summary = "writes down that it acted",
    .acts = true,
    .on_unknown = ON_UNKNOWN_RERUN,
    .handle = handle,
    .manifest_json = "{\"acts\":true,\"name\":\"ledger\",\"on_unknown\":\"rerun\",\"timeout\":\"20s\"}",
};

int main(int argc, char **argv)
{
    return function_main(&ledger, argc, argv);
}
