#include "functions/dispatcher/clock_anchor.h"

#include <criterion/criterion.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/clock.h"

static char dir[] = "/tmp/balm-anchor-XXXXXX", run[64], path[80];

static void make_dir(void)
{
    cr_assert_not_null(mkdtemp(dir));
    (void)snprintf(run, sizeof(run), "%s/run", dir);
    (void)snprintf(path, sizeof(path), "%s/clock", run);
    cr_assert_eq(mkdir(run, 0700), 0);
}

static void remove_dir(void)
{
    (void)unlink(path);
    cr_assert_eq(rmdir(run), 0, "nothing else was left");
    cr_assert_eq(rmdir(dir), 0);
}

TestSuite(clock_anchor, .init = make_dir, .fini = remove_dir);

static void write_text(const char *text)
{
    int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC, 0600);
    cr_assert_eq(write(fd, text, strlen(text)), (ssize_t)strlen(text));
    (void)close(fd);
}

Test(clock_anchor, comes_back_as_written)
{
    struct clock_anchor a, b = {.seq = 0};
    struct error err;
    clock_anchor_look(&a);
    cr_assert_eq(strlen(a.boot_id), CLOCK_BOOT_ID_MAX);
    cr_assert_eq(clock_anchor_read(dir, &b), STATUS_NOT_FOUND);
    a.before_ns = -5;
    a.seq = UINT64_MAX;
    cr_assert_eq(clock_anchor_write(dir, &a, &err), STATUS_OK, "%s", err.message);
    cr_assert_eq(clock_anchor_read(dir, &b), STATUS_OK);
    cr_assert(strcmp(a.boot_id, b.boot_id) == 0 && a.offset_ns == b.offset_ns);
    cr_assert(b.before_ns == -5 && b.seq == UINT64_MAX);
}

Test(clock_anchor, of_another_boot_or_damaged_says_nothing)
{
    static const char *const texts[] = {
        "", "boot=", "x", "boot=00000000-0000-0000-0000-000000000000 offset_ns=1 before_ns=2 seq=3\n"};
    struct clock_anchor a;
    for (size_t i = 0; i < sizeof(texts) / sizeof(texts[0]); i++) {
        write_text(texts[i]);
        cr_expect_eq(clock_anchor_read(dir, &a), STATUS_NOT_FOUND, "%s", texts[i]);
    }
    clock_anchor_look(&a);
    char text[128];
    (void)snprintf(text, sizeof(text), "boot=%s offset_ns=1", a.boot_id);
    write_text(text);
    cr_expect_eq(clock_anchor_read(dir, &a), STATUS_NOT_FOUND, "cut");
}

Test(clock_anchor, the_offset_stays_while_nobody_sets_the_clock)
{
    struct clock_anchor a, b;
    clock_anchor_look(&a);
    clock_anchor_look(&b);
    cr_assert_lt(a.offset_ns - b.offset_ns, NS_PER_S);
    cr_assert_lt(b.offset_ns - a.offset_ns, NS_PER_S);
}
