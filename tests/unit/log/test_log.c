#include "log/log.h"

#include <criterion/criterion.h>
#include <errno.h>
#include <fcntl.h>
#include <jansson.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/clock.h"

/* Lines go through a pipe: a reader that gets one line per read has seen one write. */
static int reader, writer;
static char text[4 * LOG_LINE_MAX];

static void open_pipe(void)
{
    int fds[2];
    cr_assert_eq(pipe2(fds, O_CLOEXEC), 0);
    reader = fds[0];
    writer = fds[1];
    log_set_fd(writer);
    cr_assert_eq(setenv("TZ", "UTC", 1), 0);
}

static void close_pipe(void)
{
    log_set_fd(STDERR_FILENO);
    (void)close(reader);
    (void)close(writer);
}

static size_t read_text(void)
{
    ssize_t n = read(reader, text, sizeof(text) - 1);
    cr_assert_gt(n, 0);
    text[n] = '\0';
    return (size_t)n;
}

static json_t *read_line(void)
{
    size_t n = read_text();
    cr_assert(text[n - 1] == '\n' && strchr(text, '\n') == text + n - 1, "not one line: %s", text);
    json_error_t why;
    json_t *line = json_loads(text, JSON_REJECT_DUPLICATES | JSON_ALLOW_NUL, &why);
    cr_assert_not_null(line, "%s: %s", why.text, text);
    return line;
}

static const char *member(const json_t *line, const char *name)
{
    const char *value = json_string_value(json_object_get(line, name));
    return value ? value : "(none)";
}

TestSuite(log, .init = open_pipe, .fini = close_pipe);

Test(log, line_has_four_members_then_the_fields_in_order)
{
    int64_t before = clock_unix_ns(), logged = 0;
    log_info("gateway", "function started", LOG_STR("function", "echo"), LOG_INT("pid", -12),
             LOG_BOOL("is_warm", true));
    json_t *line = read_line();
    cr_assert(rfc3339_parse(sv(member(line, "timestamp")), &logged) == STATUS_OK);
    cr_assert(logged >= before && logged <= clock_unix_ns());
    cr_assert_not_null(
        strstr(text, "Z\",\"level\":\"INFO\",\"logger\":\"gateway\",\"message\":\"function started\","
                     "\"function\":\"echo\",\"pid\":-12,\"is_warm\":true}\n"),
        "%s", text);
    json_decref(line);
}

Test(log, lines_below_the_level_are_not_written)
{
    log_debug("x", "not this");
    log_set_level(LOG_LEVEL_ERROR);
    log_warn("x", "nor this");
    log_error("x", "but this");
    json_t *line = read_line();
    cr_assert_str_eq(member(line, "message"), "but this");
    cr_assert_str_eq(member(line, "level"), "ERROR");
    json_decref(line);
    log_set_level(LOG_LEVEL_DEBUG);
    log_debug("x", "now this");
    line = read_line();
    cr_assert_str_eq(member(line, "level"), "DEBUG");
    json_decref(line);
}

Test(log, hostile_text_stays_inside_its_string)
{
    log_warn("x\n", "a\"\n{\\\x01\xFF", LOG_SV("k\"", SV("v\0\r\n\xE2\x82")), LOG_STR("null", NULL));
    json_t *line = read_line();
    cr_assert_str_eq(member(line, "message"), "a\"\n{\\\x01\uFFFD");
    cr_assert_str_eq(member(line, "level"), "WARNING");
    const json_t *value = json_object_get(line, "k\"");
    cr_assert_eq(json_string_length(value), strlen("v") + 1 + strlen("\r\n\uFFFD\uFFFD"));
    cr_assert_str_eq(member(line, "null"), "");
    json_decref(line);
}

/* Whatever is too long is cut, and the line is still one JSON object of at most LOG_LINE_MAX. */
Test(log, long_values_are_cut_at_any_length_without_breaking_the_line)
{
    static char filler[3 * LOG_LINE_MAX];
    static const char *const units[] = {"a", "\n", "\x01", "\u00e9", "\u20ac", "\U0001F600", "\x80"};
    for (size_t u = 0; u < sizeof(units) / sizeof(units[0]); u++) {
        size_t unit = strlen(units[u]);
        for (size_t i = 0; i + unit <= sizeof(filler); i += unit)
            memcpy(filler + i, units[u], unit);
        for (size_t len = LOG_LINE_MAX / 8 - 20; len < LOG_LINE_MAX + 200; len += 97) {
            char *message = strndup(filler, len);
            log_info("x", message, LOG_INT("first", 1), LOG_SV("value", sv_n(filler, len)),
                     LOG_INT("last", 2));
            json_t *line = read_line();
            cr_assert_leq(strlen(text), LOG_LINE_MAX);
            cr_assert_not_null(json_object_get(line, "first"), "unit %zu len %zu", u, len);
            json_decref(line);
            free(message);
        }
    }
}

Test(log, many_fields_are_whole_or_absent)
{
    struct log_field fields[1001] = {{0}};
    for (size_t i = 0; i < 1000; i++)
        fields[i] = LOG_INT(i % 2 ? "a_name" : "another_and_longer_name", INT64_MIN);
    log_write(LOG_LEVEL_INFO, "x", "m", fields);
    size_t n = read_text();
    cr_assert(n <= LOG_LINE_MAX && n > LOG_LINE_MAX - 300, "%zu", n);
    cr_assert_str_eq(text + n - strlen(":-9223372036854775808}\n"), ":-9223372036854775808}\n");
    json_t *line = json_loads(text, 0, NULL); /* names repeat here on purpose */
    cr_assert_not_null(line);
    json_decref(line);
}

Test(log, people_get_time_message_and_fields)
{
    log_set_terminal(true);
    log_info("gateway", "function started", LOG_STR("function", "echo"), LOG_INT("pid", 12));
    (void)read_text();
    cr_assert(text[2] == ':' && text[5] == ':' && text[8] == ' ', "%s", text);
    cr_assert_str_eq(text + 9, "function started  function=echo pid=12\n");
    log_error("gateway", "gone");
    (void)read_text();
    cr_assert_str_eq(text + 9, "error: gone\n");
    log_warn("gateway", "odd", LOG_STR("a", ""), LOG_STR("b", "two words"), LOG_BOOL("c", false));
    (void)read_text();
    cr_assert_str_eq(text + 9, "warning: odd  a=\"\" b=\"two words\" c=false\n");
}

Test(log, terminal_lines_carry_no_control_characters)
{
    log_set_terminal(true);
    log_info("x",
             "a\033[2J\n\xC2\x9B"
             "1m",
             LOG_STR("k", "\033]0;title\a"), LOG_STR("l", "\xC2\x9Bm\xC3\xA9"));
    size_t n = read_text();
    for (size_t i = 0; i + 1 < n; i++)
        cr_assert((unsigned char)text[i] >= 0x20 && text[i] != '\x7F', "byte %zu of %s", i, text);
    cr_assert_null(strstr(text, "\xC2\x9B"));
    cr_assert_not_null(strstr(text, "l=?m\u00e9"), "%s", text);
}

Test(log, colour_is_for_terminals_alone)
{
    int master = posix_openpt(O_RDWR | O_NOCTTY);
    cr_assert(master >= 0 && grantpt(master) == 0 && unlockpt(master) == 0);
    int slave = open(ptsname(master), O_RDWR | O_NOCTTY);
    cr_assert_geq(slave, 0);
    (void)unsetenv("NO_COLOR");
    log_set_terminal(true);
    log_set_fd(slave);
    log_error("x", "red");
    ssize_t n = read(master, text, sizeof(text) - 1);
    cr_assert_gt(n, 0);
    text[n] = '\0';
    cr_assert_not_null(strstr(text, "\033[31m"), "%s", text);
    log_set_fd(writer);
    log_error("x", "plain");
    (void)read_text();
    cr_assert_null(strchr(text, '\033'));
    (void)close(slave);
    (void)close(master);
}

Test(log, errno_survives)
{
    errno = ENOSPC;
    log_info("x", "y");
    cr_assert_eq(errno, ENOSPC);
    log_set_fd(-1);
    errno = ENOSPC;
    log_info("x", "nobody hears this");
    cr_assert_eq(errno, ENOSPC);
}

Test(log, a_full_pipe_loses_whole_lines_and_says_how_many)
{
    cr_assert_eq(fcntl(writer, F_SETFL, O_NONBLOCK), 0);
    static char filler[65536];
    while (write(writer, filler, sizeof(filler)) > 0)
        continue;
    log_info("x", "lost");
    log_info("x", "lost too");
    cr_assert_eq(fcntl(reader, F_SETFL, O_NONBLOCK), 0);
    while (read(reader, filler, sizeof(filler)) > 0)
        continue;
    cr_assert_eq(fcntl(reader, F_SETFL, 0), 0);
    log_info("x", "heard");
    json_t *line = read_line();
    cr_assert_str_eq(member(line, "message"), "heard");
    cr_assert_eq(json_integer_value(json_object_get(line, "lines_lost")), 2);
    json_decref(line);
}

static void *write_many(void *arg)
{
    for (int i = 0; i < 300; i++)
        log_info("thread", "line", LOG_INT("thread", *(const int *)arg), LOG_INT("i", i));
    return NULL;
}

Test(log, lines_of_threads_do_not_mix)
{
    enum { N = 4 };
    pthread_t threads[N];
    int numbers[N], seen = 0, next[N] = {0};
    for (int i = 0; i < N; i++) {
        numbers[i] = i;
        cr_assert_eq(pthread_create(&threads[i], NULL, write_many, &numbers[i]), 0);
    }
    FILE *lines = fdopen(dup(reader), "r");
    while (seen < N * 300 && fgets(text, sizeof(text), lines) != NULL) {
        json_t *line = json_loads(text, 0, NULL);
        cr_assert_not_null(line, "%s", text);
        int thread = (int)json_integer_value(json_object_get(line, "thread"));
        cr_assert_eq(json_integer_value(json_object_get(line, "i")), next[thread]++);
        json_decref(line);
        seen++;
    }
    for (int i = 0; i < N; i++)
        cr_assert_eq(pthread_join(threads[i], NULL), 0);
    (void)fclose(lines);
}

Test(log, level_names_are_read_in_any_case)
{
    enum log_level level = LOG_LEVEL_INFO;
    cr_assert(log_level_parse(SV("warning"), &level) == STATUS_OK && level == LOG_LEVEL_WARNING);
    cr_assert(log_level_parse(SV("Debug"), &level) == STATUS_OK && level == LOG_LEVEL_DEBUG);
    cr_assert(log_level_parse(SV("loud"), &level) == STATUS_INVALID_ARGUMENT && level == LOG_LEVEL_DEBUG);
}
