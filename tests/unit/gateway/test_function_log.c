#include "gateway/gateway_impl.h"

#include <criterion/criterion.h>
#include <stdio.h>
#include <string.h>

static void add(struct function_log *log, const char *text)
{
    function_log_add(log, 1, 5, sv(text));
}

Test(function_log, an_empty_log_has_no_line)
{
    struct function_log *log = function_log_new();
    struct function_log_line line;
    cr_assert_not(function_log_get(log, 0, &line));
    cr_assert_not(function_log_get(log, 1, &line));
    cr_assert_eq(function_log_last(log), 0);
    function_log_free(log);
    function_log_free(NULL);
}

Test(function_log, lines_are_numbered_from_one_and_kept_whole)
{
    struct function_log *log = function_log_new();
    struct function_log_line line;
    add(log, "first");
    function_log_add(log, 7, 99, SV("second"));
    cr_assert(function_log_get(log, 0, &line));
    cr_assert_eq(line.number, 1);
    cr_assert(sv_eq(line.text, SV("first")));
    cr_assert(function_log_get(log, 2, &line));
    cr_assert_eq(line.replica, 7);
    cr_assert_eq(line.time_unix_ns, 99);
    cr_assert(sv_eq(line.text, SV("second")));
    cr_assert_not(function_log_get(log, 3, &line));
    function_log_free(log);
}

Test(function_log, the_oldest_make_room_and_every_kept_line_is_intact)
{
    struct function_log *log = function_log_new();
    struct function_log_line line;
    char text[1200];
    const uint64_t n = 5000; /* many times what fits */
    for (uint64_t i = 1; i <= n; i++) {
        int len = snprintf(text, sizeof(text), "%llu:", (unsigned long long)i);
        size_t fill = (i * 37) % 1000;
        memset(text + len, 'x', fill);
        function_log_add(log, (unsigned)i, (int64_t)i, sv_n(text, (size_t)len + fill));
        if (i % 11 == 0) cr_assert(function_log_get(log, i - 3, &line)); /* a reader in between */
    }
    cr_assert_eq(function_log_last(log), n);
    cr_assert(function_log_get(log, 0, &line));
    uint64_t first = line.number, bytes = 0;
    cr_assert_gt(first, 1);
    for (uint64_t i = first; i <= n; i++) {
        cr_assert(function_log_get(log, i, &line));
        cr_assert_eq(line.number, i);
        int len = snprintf(text, sizeof(text), "%llu:", (unsigned long long)i);
        cr_assert_eq(line.text.len, (size_t)len + (i * 37) % 1000);
        cr_assert_eq(memcmp(line.text.ptr, text, (size_t)len), 0);
        cr_assert_eq(line.replica, (unsigned)i);
        bytes += line.text.len;
    }
    cr_assert_lt(bytes, FUNCTION_LOG_BYTES);
    cr_assert_gt(bytes, FUNCTION_LOG_BYTES / 4);
    cr_assert(function_log_get(log, first + 1, &line)); /* back again */
    cr_assert_eq(line.number, first + 1);
    function_log_free(log);
}

Test(function_log, lines_of_the_largest_size_fit_and_larger_ones_are_dropped)
{
    struct function_log *log = function_log_new();
    struct function_log_line line;
    static char big[FUNCTION_LOG_BYTES];
    memset(big, 'y', sizeof(big));
    function_log_add(log, 1, 1, sv_n(big, FUNCTION_LOG_BYTES / 4 - 16));
    cr_assert_eq(function_log_last(log), 1);
    for (int i = 0; i < 20; i++)
        function_log_add(log, 1, 1, sv_n(big, FUNCTION_LOG_BYTES / 4 - 16));
    cr_assert_eq(function_log_last(log), 21);
    function_log_add(log, 1, 1, sv_n(big, FUNCTION_LOG_BYTES / 4));
    function_log_add(log, 1, 1, sv_n(big, sizeof(big)));
    cr_assert_eq(function_log_last(log), 21);
    cr_assert(function_log_get(log, 21, &line));
    cr_assert_eq(line.text.len, FUNCTION_LOG_BYTES / 4 - 16);
    function_log_free(log);
}

Test(function_log, an_empty_line_is_a_line)
{
    struct function_log *log = function_log_new();
    struct function_log_line line;
    add(log, "");
    add(log, "b");
    cr_assert(function_log_get(log, 1, &line));
    cr_assert_eq(line.text.len, 0);
    cr_assert(function_log_get(log, 2, &line));
    cr_assert(sv_eq(line.text, SV("b")));
    function_log_free(log);
}

Test(function_log, each_line_sets_the_event)
{
    struct function_log *log = function_log_new();
    cr_assert_not(function_log_event(log)->is_set);
    add(log, "a");
    cr_assert(function_log_event(log)->is_set);
    fiber_event_reset(function_log_event(log));
    add(log, "b");
    cr_assert(function_log_event(log)->is_set);
    function_log_free(log);
}
