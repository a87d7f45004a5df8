/* balm schedule: when a runbook's schedule would come. */
#include <stddef.h>
#include <stdio.h>

#include "base/clock.h"
#include "cli/cli.h"
#include "functions/dispatcher/cron.h"

struct schedule_cfg {
    const char *time_zone, *from;
    int64_t count;
    bool is_json;
};

static const struct config_option options[] = {
    {.name = "time-zone",
     .type = CONFIG_TEXT,
     .default_text = "UTC",
     .offset = offsetof(struct schedule_cfg, time_zone),
     .value_name = "ZONE",
     .help = "IANA name, such as Europe/Berlin"},
    {.name = "from",
     .type = CONFIG_TEXT,
     .offset = offsetof(struct schedule_cfg, from),
     .value_name = "TIME",
     .help = "RFC 3339; times after this one (default: now)"},
    {.name = "count",
     .short_name = 'n',
     .type = CONFIG_INT,
     .default_text = "5",
     .min = 1,
     .max = 1000,
     .offset = offsetof(struct schedule_cfg, count),
     .help = "how many times"},
    {.name = "json",
     .type = CONFIG_BOOL,
     .offset = offsetof(struct schedule_cfg, is_json),
     .help = "JSON instead of text"},
};

struct question {
    struct cron cron;
    struct zone zone;
    int64_t from_s;
};

static enum status read_question(const struct schedule_cfg *cfg, const char *expression, struct arena *a,
                                 struct question *ret, struct error *err)
{
    int64_t from_ns = clock_unix_ns();
    enum status s = cron_parse(sv(expression), &ret->cron, err);
    if (s == STATUS_OK) s = zone_read(a, sv(cfg->time_zone), &ret->zone, err);
    if (s == STATUS_OK && cfg->from != NULL &&
        (rfc3339_parse(sv(cfg->from), &from_ns) != STATUS_OK || from_ns == 0))
        s = error_set(err, STATUS_INVALID_ARGUMENT,
                      "--from '%.60s' is no time such as 2026-03-29T00:00:00+01:00", cfg->from);
    if (s == STATUS_OK) ret->from_s = from_ns / NS_PER_S - (from_ns % NS_PER_S < 0 ? 1 : 0);
    return s;
}

/* 2026-03-29T03:30:00+02:00 */
static struct strview local_text(struct arena *a, const struct zone *z, int64_t unix_s)
{
    char text[RFC3339_LEN + 1];
    int32_t offset_s = zone_span_at(z, unix_s).offset_s;
    int minutes = (offset_s < 0 ? -offset_s : offset_s) / 60;
    rfc3339_format((unix_s + offset_s) * NS_PER_S, text);
    return arena_printf(a, "%.19s%c%02d:%02d", text, offset_s < 0 ? '-' : '+', minutes / 60, minutes % 60);
}

static json_t *times_json(const struct question *q, int64_t count, struct arena *a)
{
    json_t *list = json_array();
    int64_t at_s = q->from_s;
    char utc[RFC3339_LEN + 1];
    while (count-- > 0 && cron_next(&q->cron, &q->zone, at_s, &at_s)) {
        rfc3339_format(at_s * NS_PER_S, utc);
        (void)json_array_append_new(
            list, json_pack("{s:o, s:s}", "local", json_text(local_text(a, &q->zone, at_s)), "time", utc));
    }
    return list;
}

static void print_times(const json_t *list)
{
    size_t i;
    json_t *o;
    json_array_foreach(list, i, o) printf("%s   %s\n", json_string_value(json_object_get(o, "local")),
                                          json_string_value(json_object_get(o, "time")));
}

static int run_schedule(const struct command *self, int argc, char **argv)
{
    struct arena a = {0};
    struct schedule_cfg cfg = {0};
    struct question q;
    struct error err = {0};
    int n = 0, code = CLI_OK;
    json_t *list = NULL;
    if (!cli_parse(self, argc, argv, &a, &cfg, &n, &code)) goto out;
    if (n != 1) {
        (void)!error_set(&err, STATUS_INVALID_ARGUMENT, "takes one expression, in quotes: balm schedule '%s'",
                         "30 3 * * *");
        code = cli_fail(self, &err);
    } else if (read_question(&cfg, argv[1], &a, &q, &err) != STATUS_OK) {
        code = cli_fail(self, &err);
    } else {
        list = times_json(&q, cfg.count, &a);
        if (cfg.is_json) {
            (void)json_dumpf(list, stdout, JSON_COMPACT | JSON_SORT_KEYS);
            putchar('\n');
        } else {
            print_times(list);
        }
    }
out:
    json_release(list);
    arena_release(&a);
    return code;
}

const struct command command_schedule = {
    .name = "schedule",
    .arguments = "EXPRESSION",
    .summary = "when a schedule comes: the next times of a cron expression in a time zone",
    .description =
        "Prints the times at which a runbook with this 'schedule' would run, on the zone's clock and in UTC. Needs no platform.\n"
        "The expression has cron's five fields, or is @hourly, @daily, @weekly, @monthly, @yearly or @every DURATION (balm-runbook(5)).",
    .options = options,
    .n_options = ARRAY_LEN(options),
    .run = run_schedule,
};
