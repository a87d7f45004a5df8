/* balm doctor: is everything there that an alert needs on its way, and back? */
#include "cli/doctor.h"

#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>

#include "base/clock.h"

static const struct config_option options[] = {
    CLI_PLATFORM_OPTIONS(struct doctor_cfg, platform),
    {.name = "webhook-token-file",
     .type = CONFIG_PATH,
     .offset = offsetof(struct doctor_cfg, webhook_token_file),
     .value_name = "FILE",
     .help = "the token for alerts (secrets/webhook-token of the data folder)"},
    CLI_ALERTMANAGER_OPTIONS(struct doctor_cfg, alertmanager,
                             "send a test alert through this one as well, and wait for it to come back"),
    {.name = "timeout",
     .type = CONFIG_DURATION,
     .default_text = "60s",
     .min = NS_PER_S,
     .max = 3600 * NS_PER_S,
     .offset = offsetof(struct doctor_cfg, timeout_ns),
     .help = "how long the way through Alertmanager may take, there and back each"},
    {.name = "json",
     .type = CONFIG_BOOL,
     .offset = offsetof(struct doctor_cfg, is_json),
     .help = "JSON instead of text"},
};

/* In this order: what comes later relies on what came before. */
static void (*const checks[])(struct doctor *d) = {
    doctor_check_platform,  doctor_check_store,    doctor_check_clock,        doctor_check_disk,
    doctor_check_acting,    doctor_check_runbooks, doctor_check_functions,    doctor_check_limits,
    doctor_check_isolation, doctor_check_alert,    doctor_check_alertmanager,
};

/* ---- one line ---- */

static void add(struct doctor *d, const char *result, const char *check, const char *next, const char *fmt,
                va_list args) PRINTF_LIKE(5, 0);
static void add(struct doctor *d, const char *result, const char *check, const char *next, const char *fmt,
                va_list args)
{
    char text[2 * ERROR_MESSAGE_MAX];
    (void)vsnprintf(text, sizeof(text), fmt, args);
    json_t *line =
        json_pack("{s:s, s:s, s:o}", "check", check, "result", result, "message", json_text(sv(text)));
    if (next != NULL) (void)json_object_set_new(line, "next", json_text(sv(next)));
    (void)json_array_append_new(d->checks, line);
    if (d->cfg->is_json) return;
    printf("%-5s %-13s %s", result, check, cli_shown(&d->arena, sv(text)).ptr);
    if (next != NULL) printf("; next: %s", cli_shown(&d->arena, sv(next)).ptr);
    putchar('\n');
    (void)fflush(stdout); /* the next one may take its time */
}

void doctor_ok(struct doctor *d, const char *check, const char *fmt, ...)
{
    va_list args;
    va_start(args, fmt);
    add(d, "ok", check, NULL, fmt, args);
    va_end(args);
}

void doctor_fail(struct doctor *d, const char *check, const char *next, const char *fmt, ...)
{
    va_list args;
    va_start(args, fmt);
    add(d, "FAIL", check, next, fmt, args);
    va_end(args);
    d->n_failed++;
}

void doctor_skip(struct doctor *d, const char *check, const char *fmt, ...)
{
    va_list args;
    va_start(args, fmt);
    add(d, "skip", check, NULL, fmt, args);
    va_end(args);
    d->n_skipped++;
}

/* ---- the whole ---- */

static int examine(const struct doctor_cfg *cfg)
{
    struct doctor d = {.cfg = cfg, .checks = json_array()};
    for (size_t i = 0; i < ARRAY_LEN(checks); i++)
        checks[i](&d);
    if (cfg->is_json) {
        json_t *all = json_pack("{s:b, s:O}", "ok", d.n_failed == 0, "checks", d.checks);
        (void)json_dumpf(all, stdout, JSON_COMPACT | JSON_SORT_KEYS);
        putchar('\n');
        json_decref(all);
    } else {
        printf("\n%zu checks: %u failed, %u skipped\n", json_array_size(d.checks), d.n_failed, d.n_skipped);
    }
    json_decref(d.checks);
    json_release(d.status);
    json_release(d.functions);
    arena_release(&d.arena);
    return d.n_failed == 0 ? CLI_OK : CLI_FAILED;
}

static int run_doctor(const struct command *self, int argc, char **argv)
{
    struct arena a = {0};
    struct doctor_cfg cfg = {0};
    struct error err = {0};
    int n = 0, code = CLI_OK;
    if (!cli_parse(self, argc, argv, &a, &cfg, &n, &code)) goto out;
    if (n > 0) {
        (void)!error_set(&err, STATUS_INVALID_ARGUMENT, "takes no argument, got '%s'", argv[1]);
        code = cli_fail(self, &err);
    } else {
        code = examine(&cfg);
    }
out:
    arena_release(&a);
    return code;
}

const struct command command_doctor = {
    .name = "doctor",
    .arguments = "",
    .summary = "is everything there that an alert needs on its way? each check, and what to do",
    .description =
        "Asks the platform about itself, starts each function once to see it answer, and posts a test alert BalmDoctor, which it looks up in the\n"
        "journal and resolves again. No runbook may match it (that is asked first), so nothing acts. With --alertmanager the test alert goes through\n"
        "Alertmanager's API as well and has to come back by its webhook; whoever else is on its route hears of it, too.\n"
        "Exit code 0: nothing failed; 1: something did, or the platform is not there.",
    .options = options,
    .n_options = ARRAY_LEN(options),
    .run = run_doctor,
};
