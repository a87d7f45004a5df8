#include "cli/cli.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

const char *const cli_exit_meanings[CLI_N_EXITS] = {
    [CLI_OK] = "done",
    [CLI_FAILED] = "failed or refused",
    [CLI_USAGE] = "wrong usage or file",
    [CLI_NOT_FOUND] = "not found or not running",
    [CLI_INCOMPLETE] = "audit verify: genuine, but an act has no outcome",
    [CLI_UNPROVEN] = "audit verify: nothing is found, but some records were not sealed in time",
};

void cli_print_help(const struct command *c)
{
    printf("usage: balm %s%s%s%s\n\n%s\n", c->name, c->n_options > 0 ? " [OPTIONS]" : "",
           c->arguments[0] != '\0' ? " " : "", c->arguments,
           c->description != NULL ? c->description : c->summary);
    if (c->n_options == 0) return;
    puts("\noptions:");
    config_print_help(c->options, c->n_options, stdout);
}

static bool asks_for_help(int argc, char **argv)
{
    for (int i = 1; i < argc; i++) {
        if (strcmp(argv[i], "--") == 0) return false;
        if (strcmp(argv[i], "--help") == 0 || strcmp(argv[i], "-h") == 0) return true;
    }
    return false;
}

bool cli_parse(const struct command *self, int argc, char **argv, struct arena *a, void *ret_cfg,
               int *ret_n_positional, int *ret_exit)
{
    if (asks_for_help(argc, argv)) {
        cli_print_help(self);
        *ret_exit = CLI_OK;
        return false;
    }
    struct error err;
    if (config_load(self->options, self->n_options, argc, argv, a, ret_cfg, ret_n_positional, &err) !=
        STATUS_OK) {
        cli_fail(self, &err);
        *ret_exit = CLI_USAGE;
        return false;
    }
    return true;
}

int cli_fail(const struct command *self, const struct error *err)
{
    fprintf(stderr, "balm %s: %s\n", self->name, err->message);
    switch (err->code) {
    case STATUS_INVALID_ARGUMENT:
        return CLI_USAGE;
    case STATUS_NOT_FOUND:
    case STATUS_UNAVAILABLE:
        return CLI_NOT_FOUND;
    default:
        return CLI_FAILED;
    }
}

struct strview cli_shown(struct arena *a, struct strview text)
{
    char *out = arena_alloc(a, text.len + 1);
    size_t len = 0;
    while (text.len > 0) {
        size_t n = sv_utf8_sequence(text);
        unsigned char c = (unsigned char)text.ptr[0];
        bool is_c1 = n == 2 && c == 0xC2 && (unsigned char)text.ptr[1] < 0xA0;
        if (n == 0 || c < 0x20 || c == 0x7F || is_c1) {
            out[len++] = c == '\n' || c == '\t' ? ' ' : '?';
        } else {
            memcpy(out + len, text.ptr, n);
            len += n;
        }
        text = sv_sub(text, n == 0 ? 1 : n, text.len);
    }
    out[len] = '\0';
    return sv_n(out, len);
}

const char *cli_text(struct arena *a, const json_t *object, const char *key)
{
    return cli_shown(a, json_get_text(object, key)).ptr;
}

const char *cli_age(const json_t *seconds, char ret_text[32])
{
    long long s = (long long)json_integer_value(seconds);
    if (!json_is_integer(seconds))
        (void)snprintf(ret_text, 32, "never");
    else if (s < 120)
        (void)snprintf(ret_text, 32, "%lld s", s);
    else if (s < 7200)
        (void)snprintf(ret_text, 32, "%lld min", s / 60);
    else if (s < 172800)
        (void)snprintf(ret_text, 32, "%lld h", s / 3600);
    else
        (void)snprintf(ret_text, 32, "%lld d", s / 86400);
    return ret_text;
}

int cli_finish(int code)
{
    errno = 0;
    bool is_written = fflush(stdout) == 0;
    int why = errno; /* 0: it failed earlier, in the middle */
    if (is_written && !ferror(stdout)) return code;
    if (why != EPIPE)
        fprintf(stderr, "balm: not all of the output could be written%s%s\n", why != 0 ? ": " : "",
                why != 0 ? strerror(why) : "");
    return code == CLI_OK ? CLI_FAILED : code;
}
