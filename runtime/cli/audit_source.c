#include "cli/audit_source.h"

/* Stored bytes are canonical JSON: the tree that came over gives them back. */
static enum status read_entry(const json_t *item, struct arena *a, struct journal_entry *ret_entry,
                              struct error *err)
{
    const json_t *record = json_object_get(item, "record");
    struct record *r = arena_zalloc(a, sizeof(*r));
    json_int_t seq = json_integer_value(json_object_get(item, "seq"));
    if (!json_is_object(record) || seq <= 0)
        return error_set(err, STATUS_FAILED_PRECONDITION,
                         "the platform's answer has no record where one should be");
    *ret_entry =
        (struct journal_entry){.seq = (uint64_t)seq, .bytes = json_canonical(a, record), .record = r};
    return record_decode(ret_entry->bytes, a, r, err);
}

static enum status read_answer(struct audit_source *s, const json_t *answer, struct arena *a,
                               struct journal_entry **ret_entries, size_t *ret_n, struct error *err)
{
    const json_t *records = json_object_get(answer, "records");
    if (!json_is_array(records))
        return error_set(err, STATUS_FAILED_PRECONDITION, "the platform's answer has no records");
    s->first_seq = (uint64_t)json_integer_value(json_object_get(answer, "first"));
    s->last_seq = (uint64_t)json_integer_value(json_object_get(answer, "last"));
    size_t n = json_array_size(records);
    struct journal_entry *entries = arena_array(a, n, sizeof(*entries));
    for (size_t i = 0; i < n; i++) {
        enum status st = read_entry(json_array_get(records, i), a, &entries[i], err);
        if (st != STATUS_OK) return st;
    }
    *ret_entries = entries;
    *ret_n = n;
    return STATUS_OK;
}

static enum status ask(struct audit_source *s, uint64_t seq, size_t max, struct arena *a,
                       struct journal_entry **ret_entries, size_t *ret_n, struct error *err)
{
    json_t *answer = NULL;
    struct strview path = arena_printf(a, "/function/audit/records?from=%llu&limit=%zu",
                                       (unsigned long long)(seq > 0 ? seq : 1), max);
    enum status st = cli_api(s->platform, "GET", path.ptr, NULL, &answer, err);
    if (st == STATUS_OK) st = read_answer(s, answer, a, ret_entries, ret_n, err);
    json_release(answer);
    return st;
}

enum status audit_source_open(const struct cli_platform *platform, const char *data_dir,
                              struct audit_source *ret_source, struct error *err)
{
    struct audit_source s = {.platform = platform};
    struct arena a = {0};
    struct journal_entry *entries;
    size_t n;
    enum status st;
    if (platform->url != NULL) {
        st = ask(&s, 1, 1, &a, &entries, &n, err);
    } else {
        st = journal_reader_open(arena_printf(&a, "%s/journal", data_dir).ptr, &s.reader, err);
        if (st == STATUS_OK) s.first_seq = journal_reader_first_seq(s.reader);
    }
    arena_release(&a);
    if (st == STATUS_OK) *ret_source = s;
    return st;
}

enum status audit_source_read(struct audit_source *s, uint64_t seq, size_t max, struct arena *a,
                              struct journal_entry **ret_entries, size_t *ret_n, struct error *err)
{
    if (s->reader == NULL) return ask(s, seq, max, a, ret_entries, ret_n, err);
    return journal_reader_read(s->reader, seq, max, true, a, ret_entries, ret_n, err);
}

void audit_source_close(struct audit_source *s)
{
    journal_reader_close(s->reader);
    s->reader = NULL;
}
