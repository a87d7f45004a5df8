#include "config/config.h"

#include <criterion/criterion.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/list.h"

struct cfg {
    const char *listen, *data;
    int64_t timeout_ns, port, body_bytes, plain;
    bool is_verbose;
};

static const struct config_option options[] = {
    {.name = "listen",
     .short_name = 'l',
     .type = CONFIG_TEXT,
     .default_text = "127.0.0.1",
     .offset = offsetof(struct cfg, listen),
     .value_name = "ADDR",
     .help = "address to serve on"},
    {.name = "data",
     .env = "test_data",
     .type = CONFIG_PATH,
     .offset = offsetof(struct cfg, data),
     .help = "state folder"},
    {.name = "exec-timeout",
     .env = "exec_timeout",
     .type = CONFIG_DURATION,
     .default_text = "30s",
     .min = 0,
     .max = 3600 * NS_PER_S,
     .offset = offsetof(struct cfg, timeout_ns),
     .help = "limit of one request"},
    {.name = "port",
     .env = "test_port",
     .short_name = 'p',
     .type = CONFIG_INT,
     .default_text = "8080",
     .max = 65535,
     .offset = offsetof(struct cfg, port),
     .help = "port, 0 picks one"},
    {.env = "max_body",
     .type = CONFIG_BYTES,
     .default_text = "8MiB",
     .min = 1024,
     .max = INT64_C(1) << 30,
     .offset = offsetof(struct cfg, body_bytes),
     .help = "largest body, a|b"},
    {.name = "plain", .type = CONFIG_INT, .offset = offsetof(struct cfg, plain), .help = "any number"},
    {.name = "verbose",
     .short_name = 'v',
     .env = "test_verbose",
     .type = CONFIG_BOOL,
     .offset = offsetof(struct cfg, is_verbose),
     .help = "more lines"},
};

static struct arena arena;
static struct error err;
static struct cfg cfg;
static int n_positional;
static char *args[32];

static void clean(void)
{
    for (size_t i = 0; i < ARRAY_LEN(options); i++)
        if (options[i].env != NULL) (void)unsetenv(options[i].env);
}

static void release(void)
{
    arena_release(&arena);
}

TestSuite(config, .init = clean, .fini = release);

/* Words of `line` as a command line behind argv[0]. */
static enum status load(const char *line)
{
    struct strview rest = sv(line), word;
    int argc = 1;
    args[0] = arena_cstr(&arena, SV("balm"));
    while (sv_next(&rest, ' ', &word))
        if (word.len > 0) args[argc++] = arena_cstr(&arena, word);
    args[argc] = NULL;
    memset(&cfg, 0xAA, sizeof(cfg));
    return config_load(options, ARRAY_LEN(options), argc, args, &arena, &cfg, &n_positional, &err);
}

static void expect_error(const char *line, const char *message)
{
    cr_assert(load(line) == STATUS_INVALID_ARGUMENT, "%s", line);
    cr_assert_str_eq(err.message, message);
}

Test(config, defaults_fill_everything)
{
    cr_assert(load("") == STATUS_OK, "%s", err.message);
    cr_assert_str_eq(cfg.listen, "127.0.0.1");
    cr_assert_null(cfg.data);
    cr_assert(cfg.timeout_ns == 30 * NS_PER_S && cfg.port == 8080 && cfg.body_bytes == 8 << 20);
    cr_assert(cfg.plain == 0 && !cfg.is_verbose && n_positional == 0);
}

Test(config, command_line_beats_environment_beats_default)
{
    (void)setenv("exec_timeout", "5", 1);
    (void)setenv("test_port", "1", 1);
    (void)setenv("max_body", "64KiB", 1);
    (void)setenv("test_verbose", "1", 1);
    (void)setenv("test_data", "", 1); /* empty means unset */
    cr_assert(load("--port 2") == STATUS_OK, "%s", err.message);
    cr_assert(cfg.timeout_ns == 5 * NS_PER_S && cfg.port == 2 && cfg.body_bytes == 65536 && cfg.is_verbose);
    cr_assert_null(cfg.data);
    cr_assert(load("--verbose=false") == STATUS_OK && !cfg.is_verbose);
}

Test(config, options_are_written_in_four_ways)
{
    const char *lines[] = {"--port 7 -v", "--port=7 --verbose", "-p 7 --verbose=true", "-p7 -v"};
    for (size_t i = 0; i < ARRAY_LEN(lines); i++) {
        cr_assert(load(lines[i]) == STATUS_OK, "%s: %s", lines[i], err.message);
        cr_assert(cfg.port == 7 && cfg.is_verbose, "%s", lines[i]);
    }
    cr_assert(load("--listen= --data=a=b --plain -5") == STATUS_OK, "%s", err.message);
    cr_assert_str_eq(cfg.listen, "");
    cr_assert_str_eq(cfg.data, "a=b");
    cr_assert_eq(cfg.plain, -5);
}

Test(config, positional_arguments_come_first_in_their_order)
{
    cr_assert(load("up -p 7 echo -v - -- --listen -x") == STATUS_OK, "%s", err.message);
    cr_assert_eq(n_positional, 5);
    const char *expected[] = {"up", "echo", "-", "--listen", "-x", "-p", "7", "-v", "--"};
    for (size_t i = 0; i < ARRAY_LEN(expected); i++)
        cr_assert_str_eq(args[i + 1], expected[i]);
    cr_assert_null(args[ARRAY_LEN(expected) + 1]);
    cr_assert_str_eq(cfg.listen, "127.0.0.1");
}

Test(config, bad_values_are_named_with_what_is_allowed)
{
    expect_error("--port 65536", "--port: '65536' is out of range, allowed are 0 to 65535");
    expect_error("-p -1", "-p: '-1' is out of range, allowed are 0 to 65535");
    expect_error("--port=http", "--port: 'http' is not a whole number in the range 0 to 65535");
    expect_error("--plain=", "--plain: '' is not a whole number");
    expect_error("--exec-timeout 2h", "--exec-timeout: '2h' is out of range, allowed are 0s to 1h");
    expect_error(
        "--exec-timeout soon",
        "--exec-timeout: 'soon' is not a duration such as 30s, 250ms or 1m30s in the range 0s to 1h");
    expect_error("--verbose=yes", "--verbose: 'yes' is not true, 1, false or 0");
    expect_error("--listen", "--listen: needs a value, text");
    (void)setenv("max_body", "2GiB", 1);
    expect_error("", "max_body: '2GiB' is out of range, allowed are 1KiB to 1GiB");
    (void)setenv("max_body", "8MB", 1);
    expect_error("", "max_body: '8MB' is not a size such as 65536, 64KiB or 8MiB in the range 1KiB to 1GiB");
    (void)setenv("max_body", "99999999999GiB", 1);
    cr_assert(load("") == STATUS_INVALID_ARGUMENT);
}

Test(config, unknown_options_are_named_with_the_nearest)
{
    expect_error("--prot 1", "unknown option --prot, did you mean --port?");
    expect_error("--lisen=x", "unknown option --lisen, did you mean --listen?");
    expect_error("--something-else", "unknown option --something-else");
    expect_error("-x", "unknown option -x");
    expect_error("--max_body=1", "unknown option --max_body"); /* from the environment only */
}

Test(config, texts_are_copies)
{
    cr_assert(load("--data folder") == STATUS_OK);
    args[3] = NULL;
    memset(args[2], 'x', 3);
    cr_assert_str_eq(cfg.data, "folder");
}

static char *printed(void (*print)(const struct config_option *, size_t, FILE *),
                     const struct config_option *o, size_t n)
{
    char *text = NULL;
    size_t len;
    FILE *out = open_memstream(&text, &len);
    print(o, n, out);
    (void)fclose(out);
    return text;
}

Test(config, help_is_aligned_and_complete)
{
    char *help = printed(config_print_help, options, ARRAY_LEN(options));
    cr_assert_str_eq(
        help,
        "  -l, --listen ADDR            address to serve on (default 127.0.0.1)\n"
        "      --data PATH              state folder (env test_data)\n"
        "      --exec-timeout DURATION  limit of one request (default 30s, 0s to 1h, env exec_timeout)\n"
        "  -p, --port N                 port, 0 picks one (default 8080, 0 to 65535, env test_port)\n"
        "      max_body=BYTES           largest body, a|b (default 8MiB, 1KiB to 1GiB)\n"
        "      --plain N                any number\n"
        "  -v, --verbose                more lines (env test_verbose)\n");
    free(help);
}

Test(config, help_stays_within_110_columns)
{
    const struct config_option wide[] = {
        {.name = "a-name-that-is-much-longer-than-the-others", .type = CONFIG_DURATION, .help = "short"},
        {.name = "b",
         .type = CONFIG_INT,
         .help =
             "words words words words words words words words words words words words words words words words "
             "words words words words words words words words words words words words words words words words "
             "words words"},
    };
    char *help = printed(config_print_help, wide, 2);
    struct strview rest = sv(help), line;
    size_t n_lines = 0;
    while (sv_next(&rest, '\n', &line)) {
        cr_assert_leq(line.len, 110);
        cr_assert_not(sv_ends_with(line, SV(" ")) && sv_trim(line).len > 0);
        n_lines++;
    }
    cr_assert_eq(n_lines, 6, "%s", help); /* two, three, and the empty rest behind the last line feed */
    free(help);
}

Test(config, markdown_is_a_table_with_escaped_pipes)
{
    char *table = printed(config_print_markdown, options, ARRAY_LEN(options));
    cr_assert_not_null(
        strstr(table, "| option | environment | default | range | meaning |\n|---|---|---|---|---|\n"));
    cr_assert_not_null(
        strstr(table, "\n| `-p`, `--port N` | `test_port` | `8080` | 0 to 65535 | port, 0 picks one |\n"));
    cr_assert_not_null(strstr(table, "\n|  | `max_body` | `8MiB` | 1KiB to 1GiB | largest body, a\\|b |\n"),
                       "%s", table);
    free(table);
}

Test(config, nearest_is_within_half_of_the_word)
{
    const char *const names[] = {"status", "why", "audit", "stop"};
    cr_assert_str_eq(config_nearest("statsu", names, 4), "status");
    cr_assert_str_eq(config_nearest("stpo", names, 4), "stop");
    cr_assert_str_eq(config_nearest("adit", names, 4), "audit");
    cr_assert_str_eq(config_nearest("why", names, 4), "why");
    cr_assert_null(config_nearest("zzzz", names, 4));
    cr_assert_null(config_nearest("", names, 4));
    cr_assert_null(config_nearest("x", names, 0));
    char big[500];
    memset(big, 's', sizeof(big) - 1);
    big[sizeof(big) - 1] = '\0';
    cr_assert_null(config_nearest(big, names, 4));
    cr_assert_null(config_nearest("s", (const char *const[]){big}, 1));
}
