#include "cli/cli.h"

#include <stddef.h>
#include <stdio.h>
#include <string.h>

#include "base/file.h"
#include "cli/generate.h"
#include "cli/manual.h"

static int run_version(const struct command *self, int argc, char **argv);
static int run_generate(const struct command *self, int argc, char **argv);
static int run_help(const struct command *self, int argc, char **argv);

static const struct command command_generate = {
    .name = "generate",
    .arguments = "[--json] bot FILE --out DIR | stack FILE... | knative FILE... | readme FILE...",
    .summary = "what is derived from a function's bot.yaml",
    .description =
        "bot     the parameter struct, its validating decoder, the manifest and main() of one function, into DIR\n"
        "stack   stack.yml for these functions, on stdout\n"
        "knative Knative Services for these functions, on stdout (--image-prefix REGISTRY/)\n"
        "readme  the table of these functions for a README, on stdout\n"
        "--json  bot: the files that were written; stack, knative: the file as JSON; readme: the manifests",
    .run = run_generate,
};
static const struct command command_version = {
    .name = "version", .arguments = "", .summary = "print the version", .run = run_version};

struct help_cfg {
    const char *completion;
    bool is_markdown, is_man;
};

static const struct config_option help_options[] = {
    {.name = "markdown",
     .type = CONFIG_BOOL,
     .offset = offsetof(struct help_cfg, is_markdown),
     .help = "the command's settings as a table for a README"},
    {.name = "man",
     .type = CONFIG_BOOL,
     .offset = offsetof(struct help_cfg, is_man),
     .help = "balm(1), all commands; to read it: balm help --man | man -l -"},
    {.name = "completion",
     .type = CONFIG_TEXT,
     .offset = offsetof(struct help_cfg, completion),
     .value_name = "bash|zsh",
     .help = "completion for this shell; in bash: eval \"$(balm help --completion bash)\""},
};
static const struct command command_help = {
    .name = "help",
    .arguments = "[COMMAND]",
    .summary = "what there is, or what a command does",
    .options = help_options,
    .n_options = ARRAY_LEN(help_options),
    .run = run_help,
};

static const struct command *const commands[] = {
    &command_up,       &command_status,   &command_why,     &command_incident, &command_dead,
    &command_schedule, &command_audit,    &command_stop,    &command_resume,   &command_reload,
    &command_metrics,  &command_receiver, &command_explain, &command_plan,     &command_doctor,
    &command_runbook,  &command_backup,   &command_restore, &command_generate, &command_help,
    &command_version,
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
    fputs("\nbalm COMMAND --help says more.\n\nexit codes:\n", out);
    for (size_t i = 0; i < CLI_N_EXITS; i++)
        fprintf(out, "  %zu  %s\n", i, cli_exit_meanings[i]);
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

static int help_on_command(const char *name, const struct help_cfg *cfg)
{
    const struct command *c = find_command(name);
    if (c == NULL) return unknown_command(name);
    if (cfg->is_markdown)
        config_print_markdown(c->options, c->n_options, stdout);
    else
        cli_print_help(c);
    return CLI_OK;
}

static int help_on_all(const struct help_cfg *cfg)
{
    if (cfg->is_man) {
        manual_print(commands, ARRAY_LEN(commands), stdout);
    } else if (cfg->completion == NULL) {
        print_usage(stdout);
    } else if (strcmp(cfg->completion, "bash") == 0) {
        completion_print_bash(commands, ARRAY_LEN(commands), stdout);
    } else if (strcmp(cfg->completion, "zsh") == 0) {
        completion_print_zsh(commands, ARRAY_LEN(commands), stdout);
    } else {
        fprintf(stderr, "balm help: --completion is for bash and zsh, not '%s'\n", cfg->completion);
        return CLI_USAGE;
    }
    return CLI_OK;
}

static int run_help(const struct command *self, int argc, char **argv)
{
    struct arena a = {0};
    struct help_cfg cfg = {0};
    int n = 0, code = CLI_OK;
    if (!cli_parse(self, argc, argv, &a, &cfg, &n, &code)) goto out;
    if (n > 1) {
        fprintf(stderr, "balm help: takes one command, got '%s' as well\n", argv[2]);
        code = CLI_USAGE;
    } else {
        code = n == 1 ? help_on_command(argv[1], &cfg) : help_on_all(&cfg);
    }
out:
    arena_release(&a);
    return code;
}

int main(int argc, char **argv)
{
    file_open_standard();
    if (argc < 2) {
        print_usage(stderr);
        return CLI_USAGE;
    }
    if (strcmp(argv[1], "--help") == 0 || strcmp(argv[1], "-h") == 0) {
        print_usage(stdout);
        return cli_finish(CLI_OK);
    }
    if (strcmp(argv[1], "--version") == 0) return cli_finish(run_version(&command_version, 0, NULL));
    const struct command *c = find_command(argv[1]);
    if (c == NULL) return unknown_command(argv[1]);
    return cli_finish(c->run(c, argc - 1, argv + 1));
}
