#include "functions/audit/index.h"

#include <string.h>

#include "base/memory.h"
#include "log/log.h"

#define BLOCKS_START 64

static struct index_block *block_of(struct audit_index *x, uint64_t seq)
{
    size_t i = (size_t)((seq - 1) / INDEX_BLOCK_RECORDS);
    if (i >= x->blocks_capacity) {
        size_t capacity = x->blocks_capacity > 0 ? x->blocks_capacity : BLOCKS_START;
        while (capacity <= i)
            capacity *= 2;
        x->blocks = mem_realloc(x->blocks, capacity * sizeof(*x->blocks));
        x->blocks_capacity = capacity;
    }
    while (x->n_blocks <= i)
        x->blocks[x->n_blocks++] = (struct index_block){.min_ns = INT64_MAX, .max_ns = INT64_MIN};
    return &x->blocks[i];
}

static bool is_series(const struct index_series *s, enum record_kind kind, struct strview function)
{
    return s->kind == kind && sv_eq(s->function, function);
}

static struct index_series *add_series(struct audit_index *x, enum record_kind kind, struct strview function)
{
    char *name = mem_alloc(function.len + 1);
    if (function.len > 0) memcpy(name, function.ptr, function.len);
    x->series[x->n_series] = (struct index_series){
        .kind = kind, .function = sv_n(name, function.len), .min_ns = INT64_MAX, .max_ns = INT64_MIN};
    x->last_of_kind[kind] = x->n_series;
    return &x->series[x->n_series++];
}

static struct index_series *series_of(struct audit_index *x, enum record_kind kind, struct strview function)
{
    size_t i = x->last_of_kind[kind];
    if (i < x->n_series && is_series(&x->series[i], kind, function)) return &x->series[i];
    for (i = 0; i < x->n_series; i++) {
        if (!is_series(&x->series[i], kind, function)) continue;
        x->last_of_kind[kind] = i;
        return &x->series[i];
    }
    if (x->n_series == INDEX_SERIES_MAX) {
        if (!x->is_full)
            log_warn("audit", "too many series, new ones are not listed", LOG_INT("limit", INDEX_SERIES_MAX));
        x->is_full = true;
        return NULL;
    }
    return add_series(x, kind, function);
}

static void on_record(struct journal_follower *f, const struct journal_entry *e)
{
    struct audit_index *x = container_of(f, struct audit_index, follower);
    const struct record *r = e->record;
    struct index_block *b = block_of(x, e->seq);
    if (r->time_ns < b->min_ns) b->min_ns = r->time_ns;
    if (r->time_ns > b->max_ns) b->max_ns = r->time_ns;
    b->kinds |= UINT32_C(1) << r->kind;
    struct index_series *s = series_of(x, r->kind, r->function);
    if (s == NULL) return;
    if (r->time_ns < s->min_ns) s->min_ns = r->time_ns;
    if (r->time_ns > s->max_ns) s->max_ns = r->time_ns;
}

static void drop(struct audit_index *x)
{
    for (size_t i = 0; i < x->n_series; i++)
        free((char *)x->series[i].function.ptr);
    x->n_series = x->n_blocks = 0;
    x->is_full = false;
}

static void on_reset(struct journal_follower *f, uint64_t durable_seq)
{
    (void)durable_seq;
    drop(container_of(f, struct audit_index, follower));
}

/* Blocks keep kinds by their numbers. */
_Static_assert(RECORD_TICK == RECORD_KINDS - 1,
               "append new kinds behind it, or raise the version of this part");

static void on_save(const struct journal_follower *f, struct pack *p)
{
    const struct audit_index *x = container_of(f, const struct audit_index, follower);
    pack_u64(p, x->n_blocks);
    for (size_t i = 0; i < x->n_blocks; i++) {
        pack_i64(p, x->blocks[i].min_ns);
        pack_i64(p, x->blocks[i].max_ns);
        pack_u64(p, x->blocks[i].kinds);
    }
    pack_u64(p, x->n_series);
    for (size_t i = 0; i < x->n_series; i++) {
        pack_text(p, sv(record_kind_name(x->series[i].kind)));
        pack_text(p, x->series[i].function);
        pack_i64(p, x->series[i].min_ns);
        pack_i64(p, x->series[i].max_ns);
    }
}

static bool load_series(struct audit_index *x, struct unpack *u)
{
    enum record_kind kind = record_kind_from_name(unpack_text(u));
    struct strview function = unpack_text(u);
    if (u->is_bad || kind == RECORD_NONE || x->n_series == INDEX_SERIES_MAX) return false;
    struct index_series *s = add_series(x, kind, function);
    s->min_ns = unpack_i64(u);
    s->max_ns = unpack_i64(u);
    return true;
}

static enum status on_load(struct journal_follower *f, unsigned version, struct unpack *u, struct error *err)
{
    (void)version;
    struct audit_index *x = container_of(f, struct audit_index, follower);
    size_t n = unpack_count(u);
    for (size_t i = 0; i < n; i++) {
        struct index_block *b = block_of(x, (uint64_t)i * INDEX_BLOCK_RECORDS + 1);
        b->min_ns = unpack_i64(u);
        b->max_ns = unpack_i64(u);
        b->kinds = (uint32_t)unpack_u64(u);
    }
    bool is_good = true;
    for (n = unpack_count(u); n > 0 && is_good; n--)
        is_good = load_series(x, u);
    return is_good && unpack_is_good(u) ? STATUS_OK
                                        : error_set(err, STATUS_DATA_LOSS, "the audit index is damaged");
}

void index_init(struct audit_index *x)
{
    *x = (struct audit_index){.follower = {.on_record = on_record,
                                           .on_reset = on_reset,
                                           .name = "audit-index",
                                           .version = 1,
                                           .on_save = on_save,
                                           .on_load = on_load}};
    x->series = mem_zalloc(INDEX_SERIES_MAX, sizeof(*x->series));
}

void index_release(struct audit_index *x)
{
    if (x->series != NULL) drop(x);
    free(x->series);
    free(x->blocks);
    *x = (struct audit_index){0};
}
