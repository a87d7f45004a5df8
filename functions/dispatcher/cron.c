#include "functions/dispatcher/cron.h"

#include <stdio.h>

#include "base/clock.h"
#include "base/list.h"
#include "config/config.h"
#include "functions/dispatcher/cron_impl.h"

#define FIELDS 5

enum field_id { MINUTE, HOUR, DAY, MONTH, WEEKDAY };

static const struct field {
    const char *name;
    unsigned min, max;
    const char *const *names; /* of min and on; NULL-terminated */
} fields[FIELDS] = {
    [MINUTE] = {"minute", 0, 59, NULL},
    [HOUR] = {"hour", 0, 23, NULL},
    [DAY] = {"day of month", 1, 31, NULL},
    [MONTH] = {"month", 1, 12,
               (const char *const[]){"JAN", "FEB", "MAR", "APR", "MAY", "JUN", "JUL", "AUG", "SEP", "OCT",
                                     "NOV", "DEC", NULL}},
    [WEEKDAY] = {"weekday", 0, 7,
                 (const char *const[]){"SUN", "MON", "TUE", "WED", "THU", "FRI", "SAT", NULL}},
};

/* One field while it is read. */
struct scan {
    const struct field *field;
    struct strview text; /* the whole field, for messages */
    struct error *err;
};

static enum status refuse(const struct scan *s, const char *what)
{
    return error_set(s->err, STATUS_INVALID_ARGUMENT, "%s '%.*s': %s", s->field->name,
                     SV_ARG(sv_sub(s->text, 0, 60)), what);
}

/* ---- one value ---- */

static enum status refuse_name(const struct scan *s, struct strview word)
{
    char text[20], what[120];
    size_t n = 0;
    (void)snprintf(text, sizeof(text), "%.*s", SV_ARG(word));
    while (s->field->names != NULL && s->field->names[n] != NULL)
        n++;
    const char *near = n > 0 ? config_nearest(text, s->field->names, n) : NULL;
    (void)snprintf(what, sizeof(what), "'%s' is no number from %u to %u%s%s%s%s", text, s->field->min,
                   s->field->max, n > 0 ? " and none of the names" : "",
                   near != NULL ? " (did you mean '" : "", near != NULL ? near : "",
                   near != NULL ? "'?)" : "");
    return refuse(s, what);
}

static enum status parse_value(const struct scan *s, struct strview word, unsigned *ret_value)
{
    uint64_t number;
    for (unsigned i = 0; s->field->names != NULL && s->field->names[i] != NULL; i++) {
        if (!sv_eq_nocase(word, sv(s->field->names[i]))) continue;
        *ret_value = s->field->min + i;
        return STATUS_OK;
    }
    if (sv_parse_u64(word, &number) != STATUS_OK || number < s->field->min || number > s->field->max)
        return refuse_name(s, word);
    *ret_value = (unsigned)number;
    return STATUS_OK;
}

/* ---- one item of a list: "*", "5", "8-18", and with a step ---- */

struct range {
    unsigned first, last;
};

static enum status parse_range(const struct scan *s, struct strview text, struct range *ret)
{
    if (sv_eq(text, SV("*"))) {
        *ret = (struct range){s->field->min, s->field == &fields[WEEKDAY] ? 6 : s->field->max};
        return STATUS_OK;
    }
    size_t dash = sv_find(text, '-');
    enum status st = parse_value(s, sv_sub(text, 0, dash), &ret->first);
    ret->last = ret->first;
    if (st != STATUS_OK || dash == text.len) return st;
    st = parse_value(s, sv_sub(text, dash + 1, text.len), &ret->last);
    if (st == STATUS_OK && s->field == &fields[WEEKDAY] && ret->last == 0 && ret->first > 0)
        ret->last = 7; /* FRI-SUN: a week ends with Sunday as well */
    if (st == STATUS_OK && ret->last < ret->first)
        return refuse(s, "the range ends before it begins; write two ranges with a comma");
    return st;
}

static enum status parse_step(const struct scan *s, struct strview text, const struct range *range,
                              unsigned *ret_step)
{
    uint64_t step;
    char what[120];
    if (sv_parse_u64(text, &step) != STATUS_OK || step < 1) return refuse(s, "a step is a number from 1 on");
    if (range->first == range->last)
        return refuse(s, "a step needs a range before it, as in 5-59/10 or */10");
    if (step > range->last - range->first) {
        (void)snprintf(what, sizeof(what), "a step of %.*s leaves only one value between %u and %u",
                       SV_ARG(sv_sub(text, 0, 20)), range->first, range->last);
        return refuse(s, what);
    }
    *ret_step = (unsigned)step;
    return STATUS_OK;
}

static enum status parse_item(const struct scan *s, struct strview text, uint64_t *bits)
{
    struct range range;
    unsigned step = 1;
    size_t slash = sv_find(text, '/');
    if (text.len == 0) return refuse(s, "there is nothing before or behind a comma");
    enum status st = parse_range(s, sv_sub(text, 0, slash), &range);
    if (st == STATUS_OK && slash < text.len)
        st = parse_step(s, sv_sub(text, slash + 1, text.len), &range, &step);
    for (unsigned v = range.first; st == STATUS_OK && v <= range.last; v += step)
        *bits |= UINT64_C(1) << v;
    return st;
}

static enum status parse_field(enum field_id id, struct strview text, uint64_t *ret_bits, struct error *err)
{
    const struct scan s = {&fields[id], text, err};
    struct strview rest = text, item = {0};
    uint64_t bits = 0;
    enum status st = STATUS_OK;
    if (sv_contains(text, SV("?")) || sv_contains(text, SV("#")))
        return refuse(&s, "'?' and '#' are Quartz, not cron; write * or the days");
    while (st == STATUS_OK && sv_next(&rest, ',', &item))
        st = parse_item(&s, item, &bits);
    if (id == WEEKDAY && (bits & 1 << 7) != 0) bits = (bits | 1) & 0x7F;
    *ret_bits = bits;
    return st;
}

/* ---- the whole ---- */

static bool is_blank(char c)
{
    return c == ' ' || c == '\t';
}

/* Words of a text; counts those past max as well. */
static size_t split(struct strview text, struct strview *ret_words, size_t max)
{
    size_t n = 0;
    for (size_t at = 0; at < text.len;) {
        size_t end = at;
        while (end < text.len && !is_blank(text.ptr[end]))
            end++;
        if (end > at && n++ < max) ret_words[n - 1] = sv_sub(text, at, end);
        at = end + 1;
    }
    return n;
}

static const struct {
    const char *name, *fields;
} words[] = {
    {"@hourly", "0 * * * *"},  {"@daily", "0 0 * * *"},  {"@midnight", "0 0 * * *"}, {"@weekly", "0 0 * * 0"},
    {"@monthly", "0 0 1 * *"}, {"@yearly", "0 0 1 1 *"}, {"@annually", "0 0 1 1 *"},
};

static enum status refuse_word(struct strview word, struct error *err)
{
    const char *names[ARRAY_LEN(words) + 1] = {"@every"};
    char text[40];
    (void)snprintf(text, sizeof(text), "%.*s", SV_ARG(word));
    for (size_t i = 0; i < ARRAY_LEN(words); i++)
        names[i + 1] = words[i].name;
    if (sv_eq(word, SV("@reboot")))
        return error_set(err, STATUS_INVALID_ARGUMENT, "@reboot is no time; a schedule comes by the clock");
    const char *near = config_nearest(text, names, ARRAY_LEN(names));
    return error_set(err, STATUS_INVALID_ARGUMENT, "'%s' is not known here%s%s%s", text,
                     near != NULL ? " (did you mean '" : "", near != NULL ? near : "",
                     near != NULL ? "'?)" : "");
}

static enum status parse_every(struct strview text, struct cron *ret, struct error *err)
{
    int64_t ns;
    if (duration_parse(text, &ns) != STATUS_OK || ns % NS_PER_S != 0 || ns < NS_PER_S ||
        ns / NS_PER_S > CRON_EVERY_MAX_S)
        return error_set(err, STATUS_INVALID_ARGUMENT,
                         "@every '%.*s': whole seconds from 1s to 8784h, as in @every 90s or @every 6h",
                         SV_ARG(sv_sub(text, 0, 40)));
    *ret = (struct cron){.every_s = ns / NS_PER_S};
    return STATUS_OK;
}

static enum status check_count(const struct strview *parts, size_t n, struct error *err)
{
    if (n > 0 && sv_contains(parts[0], SV("=")))
        return error_set(err, STATUS_INVALID_ARGUMENT,
                         "a zone is not written here but as time_zone beside it");
    if (n == FIELDS) return STATUS_OK;
    return error_set(err, STATUS_INVALID_ARGUMENT,
                     "%zu fields; cron has 5: minute, hour, day of month, month, weekday%s", n,
                     n > FIELDS ? " (seconds are not among them; there is @every 10s)" : "");
}

static enum status parse_fields(struct strview text, struct cron *ret, struct error *err)
{
    struct strview parts[FIELDS];
    uint64_t bits[FIELDS];
    size_t n = split(text, parts, FIELDS);
    enum status s = check_count(parts, n, err);
    for (size_t i = 0; s == STATUS_OK && i < FIELDS; i++)
        s = parse_field((enum field_id)i, parts[i], &bits[i], err);
    if (s != STATUS_OK) return s;
    struct cron c = {.minutes = bits[MINUTE],
                     .hours = (uint32_t)bits[HOUR],
                     .days = (uint32_t)bits[DAY],
                     .months = (uint32_t)bits[MONTH],
                     .weekdays = (uint32_t)bits[WEEKDAY],
                     .hour_is_star = parts[HOUR].ptr[0] == '*',
                     .day_is_star = parts[DAY].ptr[0] == '*',
                     .weekday_is_star = parts[WEEKDAY].ptr[0] == '*'};
    int64_t from_s = days_from_civil(2000, 1, 1) * SECONDS_PER_DAY, found_s;
    if (!cron_find(&c, from_s, from_s + 60 * 366 * SECONDS_PER_DAY, &found_s))
        return error_set(err, STATUS_INVALID_ARGUMENT, "day of month '%.*s' never comes in month '%.*s'",
                         SV_ARG(sv_sub(parts[DAY], 0, 60)), SV_ARG(sv_sub(parts[MONTH], 0, 60)));
    *ret = c;
    return STATUS_OK;
}

enum status cron_parse(struct strview text, struct cron *ret_cron, struct error *err)
{
    struct strview parts[2];
    if (text.len > CRON_TEXT_MAX)
        return error_set(err, STATUS_INVALID_ARGUMENT, "longer than %d bytes", CRON_TEXT_MAX);
    for (size_t i = 0; i < text.len; i++)
        if ((unsigned char)text.ptr[i] < 0x20 && text.ptr[i] != '\t')
            return error_set(err, STATUS_INVALID_ARGUMENT, "control characters have no meaning here");
    size_t n = split(text, parts, ARRAY_LEN(parts));
    if (n == 0 || parts[0].ptr[0] != '@') return parse_fields(text, ret_cron, err);
    if (n <= 2 && sv_eq(parts[0], SV("@every")))
        return parse_every(n == 2 ? parts[1] : SV(""), ret_cron, err);
    for (size_t i = 0; n == 1 && i < ARRAY_LEN(words); i++)
        if (sv_eq(parts[0], sv(words[i].name))) return parse_fields(sv(words[i].fields), ret_cron, err);
    if (n > 1)
        return error_set(
            err, STATUS_INVALID_ARGUMENT,
            "'%.*s': too many words; a name beginning with @ stands alone, @every has one duration",
            SV_ARG(sv_sub(text, 0, 40)));
    return refuse_word(parts[0], err);
}
