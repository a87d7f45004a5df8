/* encode(decode(x)) == x for whatever we write, and the bytes are jansson's canonical dump of the same
 * object. The member list here is written by hand on purpose: it does not come from the table that it
 * checks. BALM_SEED repeats one run. */
#include "store/record.h"

#include <criterion/criterion.h>
#include <stddef.h>

#include "base/clock.h"
#include "base/json.h"
#include "base/list.h"
#include "base/random.h"

enum { ROUNDS = 4000, MUTATIONS = 20000 };

static const struct member {
    const char *name;
    enum { TEXT, TIME, UNSIGNED, SIGNED, FLAG, LABELS, JSON } type;
    size_t offset;
} members[] = {
#define M(name, type, where)                                                                                 \
    {                                                                                                        \
        name, type, offsetof(struct record, where)                                                           \
    }
    M("actor", TEXT, actor),
    M("annotations", LABELS, annotations),
    M("attempt", SIGNED, attempt),
    M("bodyBase64", TEXT, body_base64),
    M("callback", TEXT, callback),
    M("cause", UNSIGNED, cause),
    M("cluster", TEXT, cluster),
    M("code", TEXT, code),
    M("content", TEXT, content),
    M("deadline", TIME, deadline_ns),
    M("detail", JSON, detail),
    M("due", TIME, due_ns),
    M("endsAt", TIME, ends_at_ns),
    M("epoch", UNSIGNED, epoch),
    M("facts", JSON, facts),
    M("fingerprint", TEXT, fingerprint),
    M("fingerprintComputed", TEXT, fingerprint_computed),
    M("function", TEXT, function),
    M("gate", TEXT, gate),
    M("gates", JSON, gates),
    M("generatorURL", TEXT, generator_url),
    M("groupKey", TEXT, group_key),
    M("headers", JSON, headers),
    M("how", TEXT, how),
    M("incident", TEXT, incident),
    M("intent", TEXT, intent),
    M("labels", LABELS, labels),
    M("message", TEXT, message),
    M("method", TEXT, method),
    M("mode", TEXT, mode),
    M("ok", FLAG, ok),
    M("on", FLAG, on),
    M("params", JSON, params),
    M("path", TEXT, path),
    M("purpose", TEXT, purpose),
    M("reason", TEXT, reason),
    M("receiver", TEXT, receiver),
    M("runbook", TEXT, runbook),
    M("runbookHash", TEXT, runbook_hash),
    M("runbooks", JSON, runbooks),
    M("source", TEXT, source),
    M("stages", JSON, stages),
    M("startsAt", TIME, starts_at_ns),
    M("state", TEXT, state),
    M("status", TEXT, status),
    M("step", SIGNED, step),
    M("target", TEXT, target),
    M("tenant", TEXT, tenant),
    M("timer", UNSIGNED, timer),
    M("trace", TEXT, trace),
    M("undo", TEXT, undo),
#undef M
};

static struct random_seeded rng;
static struct arena arena;

static uint64_t below(uint64_t bound)
{
    return random_seeded_below(&rng, bound);
}

static struct strview random_text(size_t max)
{
    static const char *const pieces[] = {"\"",
                                         "\\",
                                         "\n",
                                         "\t",
                                         "\r",
                                         "\b",
                                         "\f",
                                         "\x01",
                                         "\x1F",
                                         "\x7F",
                                         "/",
                                         "<",
                                         "\xC3\xA4",
                                         "\xE2\x82\xAC",
                                         "\xE2\x80\xA8",
                                         "\xF0\x9F\x98\x80",
                                         "\xEF\xBF\xBD",
                                         "{",
                                         "}",
                                         ",",
                                         ":",
                                         " ",
                                         "\\u0041"};
    struct buf b;
    buf_init(&b, 4096);
    size_t n = 1 + below(max);
    for (size_t i = 0; i < n; i++) {
        if (below(4) == 0)
            buf_append(&b, sv(pieces[below(ARRAY_LEN(pieces))]));
        else
            buf_append_char(&b, (char)('a' + below(26)));
    }
    struct strview text = arena_copy(&arena, buf_view(&b));
    buf_release(&b);
    return text;
}

static json_t *random_json(unsigned depth)
{
    switch (below(depth > 4 ? 5 : 7)) {
    case 0:
        return json_null();
    case 1:
        return json_boolean(below(2));
    case 2:
        return json_integer((json_int_t)random_seeded_next(&rng));
    case 3:
        return json_real((double)below(1000000) / 1024);
    case 4:
        return json_text(random_text(12));
    default:
        break;
    }
    bool is_object = below(2);
    json_t *value = is_object ? json_object() : json_array();
    for (size_t n = below(4); n > 0; n--) {
        if (is_object)
            cr_assert_eq(json_object_set_new(value, random_text(8).ptr, random_json(depth + 1)), 0);
        else
            cr_assert_eq(json_array_append_new(value, random_json(depth + 1)), 0);
    }
    return value;
}

static struct record_labels random_labels(json_t *ret_tree)
{
    size_t n = below(below(8) ? 12 : RECORD_LABELS_MAX);
    struct http_header *items = arena_array(&arena, n + 1, sizeof(*items));
    for (size_t i = 0; i < n; i++) {
        items[i] = (struct http_header){random_text(9), below(5) ? random_text(30) : SV("")};
        json_object_set_new(ret_tree, items[i].name.ptr, json_text(items[i].value));
    }
    record_labels_sort(items, &n);
    return (struct record_labels){items, n};
}

static int64_t random_time(void)
{
    static const int64_t borders[] = {1,
                                      -1,
                                      NS_PER_S,
                                      INT64_C(-9214560000) * NS_PER_S,
                                      INT64_C(9214646400) * NS_PER_S - 1,
                                      INT64_C(253402300799)};
    if (below(3) == 0) return borders[below(ARRAY_LEN(borders))];
    return (int64_t)below((uint64_t)INT64_C(4102444800) * NS_PER_S) + 1;
}

static json_t *time_text(int64_t ns)
{
    char text[RFC3339_LEN + 1];
    rfc3339_format(ns, text);
    return json_string(text);
}

static int64_t random_number(void)
{
    static const int64_t borders[] = {1, 9, 10, INT64_MAX, INT64_MAX - 1, INT64_C(1) << 53};
    return below(2) ? borders[below(ARRAY_LEN(borders))] : (int64_t)(random_seeded_next(&rng) >> 1) | 1;
}

/* Sets one member of r and returns the JSON value of it; NULL: left unset by choice. */
static json_t *random_member(const struct member *m, struct record *r)
{
    char *at = (char *)r + m->offset;
    json_t *value;
    int64_t number;
    switch (m->type) {
    case TEXT:
        *(struct strview *)(void *)at = random_text(40);
        return json_text(*(struct strview *)(void *)at);
    case TIME:
        *(int64_t *)(void *)at = number = random_time();
        return time_text(number);
    case UNSIGNED:
        number = random_number();
        *(uint64_t *)(void *)at = (uint64_t)number;
        return json_integer(number);
    case SIGNED:
        number = below(4) ? random_number() : below(2) ? -random_number() : INT64_MIN;
        *(int64_t *)(void *)at = number;
        return json_integer(number);
    case FLAG:
        *(bool *)at = true;
        return json_true();
    case LABELS:
        value = json_object();
        *(struct record_labels *)(void *)at = random_labels(value);
        if (((struct record_labels *)(void *)at)->n > 0) return value;
        json_release(value);
        return NULL;
    case JSON:
        value = random_json(0);
        *(struct strview *)(void *)at = json_canonical(&arena, value);
        return value;
    }
    return NULL;
}

static json_t *random_record(struct record *r)
{
    *r = (struct record){.kind = (enum record_kind)(1 + below(RECORD_KINDS - 1)), .time_ns = random_time()};
    json_t *tree = json_object();
    json_object_set_new(tree, "format", json_integer(1));
    json_object_set_new(tree, "kind", json_string(record_kind_name(r->kind)));
    json_object_set_new(tree, "time", time_text(r->time_ns));
    unsigned density = 1 + (unsigned)below(8);
    for (size_t i = 0; i < ARRAY_LEN(members); i++) {
        if (below(density) != 0) continue;
        json_t *value = random_member(&members[i], r);
        if (value != NULL) json_object_set_new(tree, members[i].name, value);
    }
    return tree;
}

static uint64_t first_seed(void)
{
    const char *text = getenv("BALM_SEED");
    uint64_t seed;
    return text != NULL && sv_parse_u64(sv(text), &seed) == STATUS_OK ? seed : 20261122;
}

/* A copy has the same bytes, and has them still when what the record borrows from is gone; it destroys
 * `bytes`. */
static bool is_copied_whole(const struct record *r, struct buf *bytes)
{
    struct arena own = {0};
    struct record copy;
    struct strview before = arena_copy(&own, buf_view(bytes));
    record_copy(r, &own, &copy);
    memset(bytes->ptr, '?', bytes->len);
    bool is_whole = record_is_exact(&copy, before);
    arena_release(&own);
    return is_whole;
}

Test(record_property, bytes_are_canonical_and_survive_decoding)
{
    struct buf out, canonical, again;
    buf_init(&out, RECORD_BYTES_MAX);
    buf_init(&canonical, RECORD_BYTES_MAX);
    buf_init(&again, RECORD_BYTES_MAX);
    for (uint64_t seed = first_seed(), end = seed + ROUNDS; seed < end; seed++) {
        rng = (struct random_seeded){seed};
        struct record r, back;
        struct error err;
        json_t *tree = random_record(&r);
        buf_reset(&out);
        buf_reset(&canonical);
        buf_reset(&again);
        record_encode(&r, &out);
        json_append_canonical(&canonical, tree);
        cr_assert(sv_eq(buf_view(&out), buf_view(&canonical)), "seed %llu:\n%s\n%s", (unsigned long long)seed,
                  out.ptr, canonical.ptr);
        cr_assert_eq(record_decode(buf_view(&out), &arena, &back, &err), STATUS_OK, "seed %llu: %s",
                     (unsigned long long)seed, err.message);
        record_encode(&back, &again);
        cr_assert(sv_eq(buf_view(&out), buf_view(&again)), "seed %llu", (unsigned long long)seed);
        cr_assert(record_is_exact(&back, buf_view(&out)));
        cr_assert(is_copied_whole(&back, &out), "seed %llu", (unsigned long long)seed);
        json_release(tree);
        arena_reset(&arena);
    }
    buf_release(&out);
    buf_release(&canonical);
    buf_release(&again);
    arena_release(&arena);
}

/* Damage never crashes, and what still decodes encodes to something that decodes to the same bytes. */
Test(record_property, damaged_bytes_are_refused_or_still_a_record)
{
    struct buf out, again, third;
    buf_init(&out, RECORD_BYTES_MAX);
    buf_init(&again, 8 * RECORD_BYTES_MAX);
    buf_init(&third, 8 * RECORD_BYTES_MAX);
    size_t survived = 0;
    for (uint64_t seed = first_seed(), end = seed + MUTATIONS; seed < end; seed++) {
        rng = (struct random_seeded){seed};
        struct record r, back;
        if (seed % 20 == first_seed() % 20) {
            json_release(random_record(&r));
            buf_reset(&out);
            record_encode(&r, &out);
        }
        size_t len = below(10) ? out.len : below(out.len);
        char *bytes = malloc(len + 1); /* of its own, so that a read past the end is seen */
        memcpy(bytes, out.ptr, len);
        for (size_t n = 1 + below(3); n > 0 && len > 0; n--)
            bytes[below(len)] = below(3) ? "\"\\{}[],:0-u\xFF"[below(12)] : (char)below(256);
        enum status status = record_decode(sv_n(bytes, len), &arena, &back, NULL);
        if (status == STATUS_OK) {
            survived++;
            buf_reset(&again);
            buf_reset(&third);
            record_encode(&back, &again);
            cr_assert_eq(record_decode(buf_view(&again), &arena, &r, NULL), STATUS_OK, "seed %llu",
                         (unsigned long long)seed);
            record_encode(&r, &third);
            cr_assert(sv_eq(buf_view(&again), buf_view(&third)), "seed %llu", (unsigned long long)seed);
        }
        free(bytes);
        arena_reset(&arena);
    }
    cr_assert_gt(survived, MUTATIONS / 100);
    buf_release(&out);
    buf_release(&again);
    buf_release(&third);
    arena_release(&arena);
}
