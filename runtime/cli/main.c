#include "cli/cli.h"

#include <stdio.h>
#include <string.h>

#include "cli/generate.h"

static int run_version(const struct command *self, int argc, char **argv);
static int run_generate(const struct command *self, int argc, char **argv);

static const struct command command_generate = {
    .name = "generate",
    .arguments = "bot FILE --out DIR | stack FILE... | readme FILE...",
    .summary = "what is derived from a function's bot.yaml",
    .description =
        "bot     the parameter struct, its validating decoder, the manifest and main() of one function, into DIR\n"
        "stack   stack.yml for these functions, on stdout\n"
        "readme  the table of these functions for a README, on stdout",
    .run = run_generate,
};
static const struct command command_version = {
    .name = "version", .arguments = "", .summary = "print the version", .run = run_version};

static const struct command *const commands[] = {
    &command_up,     &command_status, &command_why,      &command_audit,   &command_stop,
    &command_resume, &command_reload, &command_generate, &command_version,
};

static int run_version(const struct command *self, int argc, char **argv)
{
    bool is_json = argc == 2 && strcmp(argv[1], "--json") == 0;
    if (argc == 2 && (strcmp(argv[1], "--help") == 0 || strcmp(argv[1], "-h") == 0)) {
        cli_print_help(self);
        return CLI_OK;
    }
    if (argc > 1 && !is_json) {
        fprintf(stderr, "balm version: takes --json and --help, got '%s'\n", argv[1]);
        return CLI_USAGE;
    }
    puts(is_json ? "{\"version\":\"" BALM_VERSION "\"}" : "balm " BALM_VERSION);
    return CLI_OK;
}

static int run_generate(const struct command *self, int argc, char **argv)
{
    struct arena a = {0};
    int n, code;
    /* Only --help is ours: the generator is a program of its own as well, built before balm. */
    if (argc > 1 && (strcmp(argv[1], "--help") == 0 || strcmp(argv[1], "-h") == 0))
        (void)cli_parse(self, argc, argv, &a, NULL, &n, &code);
    else
        code = generate_command(argc, argv);
    return code;
}

static void print_usage(FILE *out)
{
    fputs(
        "balm: turns alerts into verified repairs, and proves what it did\n\nusage: balm COMMAND [OPTIONS]\n\n",
        out);
    for (size_t i = 0; i < ARRAY_LEN(commands); i++)
        fprintf(out, "  %-10s %s\n", commands[i]->name, commands[i]->summary);
    fputs(
        "\nbalm COMMAND --help says more.\n\nexit codes: 0 done, 1 failed or refused, 2 wrong usage or file, 3 not found or not running,\n"
        "            4 audit verify: genuine, but an act has no outcome\n",
        out);
}

static const struct command *find_command(const char *name)
{
    for (size_t i = 0; i < ARRAY_LEN(commands); i++)
        if (strcmp(commands[i]->name, name) == 0) return commands[i];
    return NULL;
}

static int unknown_command(const char *name)
{
    const char *names[ARRAY_LEN(commands)];
    for (size_t i = 0; i < ARRAY_LEN(commands); i++)
        names[i] = commands[i]->name;
    const char *nearest = config_nearest(name, names, ARRAY_LEN(names));
    if (nearest != NULL)
        fprintf(stderr, "balm: unknown command '%s' (did you mean '%s'?)\n", name, nearest);
    else
        fprintf(stderr, "balm: unknown command '%s'; balm --help lists them\n", name);
    return CLI_USAGE;
}

int main(int argc, char **argv)
{
    if (argc < 2) {
        print_usage(stderr);
        return CLI_USAGE;
    }
    if (strcmp(argv[1], "--help") == 0 || strcmp(argv[1], "-h") == 0) {
        print_usage(stdout);
        return cli_finish(CLI_OK);
    }
    if (strcmp(argv[1], "--version") == 0) return cli_finish(run_version(&command_version, 0, NULL));
    bool is_help = strcmp(argv[1], "help") == 0;
    if (is_help && argc == 2) {
        print_usage(stdout);
        return cli_finish(CLI_OK);
    }
    const char *name = is_help ? argv[2] : argv[1];
    const struct command *c = find_command(name);
    if (c == NULL) return unknown_command(name);
    if (is_help && argc == 4 && strcmp(argv[3], "--markdown") == 0) { /* the README's table of settings */
        config_print_markdown(c->options, c->n_options, stdout);
        return cli_finish(CLI_OK);
    }
    if (is_help) {
        cli_print_help(c);
        return cli_finish(CLI_OK);
    }
    return cli_finish(c->run(c, argc - 1, argv + 1));
}
