/* What was signed: checkpoints one by one, leaves, and the checkpoints that were kept elsewhere. */
#include "audit/verify_impl.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

void verify_found_bad(struct verify *v, uint64_t seq, const char *fmt, ...)
{
    if (v->report->first_bad_seq != 0) return;
    char text[ERROR_MESSAGE_MAX];
    va_list args;
    va_start(args, fmt);
    (void)vsnprintf(text, sizeof(text), fmt, args);
    va_end(args);
    v->report->first_bad_seq = seq > 0 ? seq : 1;
    v->report->bad_reason = arena_copy(v->arena, sv(text));
}

bool verify_is_bad(const struct verify *v)
{
    return v->report->first_bad_seq != 0;
}

void verify_next_checkpoint(struct verify *v)
{
    struct buf note;
    struct error err = {0};
    uint64_t last_size = v->has_next ? v->next.size : 0;
    v->has_next = false;
    if (v->checkpoints == NULL || verify_is_bad(v)) return;
    buf_init(&note, NOTE_MAX);
    if (!notes_next(v->checkpoints, &v->checkpoint_bytes, &note)) {
        /* What is torn was never announced: its writer died there, or is at it now. */
        if (!checkpoint_is_torn(v->key, buf_view(&note), last_size))
            verify_found_bad(v, last_size + 1, "the checkpoint behind the one of size %" PRIu64 " is damaged",
                             last_size);
        v->has_met_any = v->has_met_any || note.len > 0;
        goto out;
    }
    v->has_met_any = true;
    uint64_t claimed = checkpoint_claimed_size(buf_view(&note));
    if (buf_status(&note) != STATUS_OK)
        verify_found_bad(v, last_size + 1,
                         "a checkpoint behind the one of size %" PRIu64 " is longer than %d bytes", last_size,
                         NOTE_MAX);
    else if (checkpoint_verify(v->key, buf_view(&note), &v->scratch, &v->next, &err) != STATUS_OK)
        verify_found_bad(v, claimed > 0 ? claimed : last_size + 1,
                         "the checkpoint behind the one of size %" PRIu64 " does not hold: %s", last_size,
                         err.message);
    else if (v->next.size < last_size)
        verify_found_bad(v, last_size, "a checkpoint of size %" PRIu64 " stands behind one of size %" PRIu64,
                         v->next.size, last_size);
    else
        v->has_next = true;
out:
    arena_reset(&v->scratch);
    buf_release(&note);
}

/* ---- leaves ---- */

bool verify_next_leaf(struct verify *v, struct merkle_hash *ret_leaf)
{
    if (v->next_leaf == v->n_leaves) {
        v->next_leaf = 0;
        v->n_leaves = v->leaves != NULL ? fread(v->leaf_buffer, sizeof(v->leaf_buffer[0]),
                                                VERIFY_LEAVES_BUFFERED, v->leaves)
                                        : 0;
        if (v->n_leaves == 0) return false;
    }
    *ret_leaf = v->leaf_buffer[v->next_leaf++];
    return true;
}

/* Have the leaves the root of v->next? Then they are what was sealed, whoever holds the file. Reads it again:
 * only after a finding. */
static bool leaves_are_sealed(struct verify *v)
{
    struct merkle_tree tree;
    struct merkle_hash leaf;
    merkle_tree_init(&tree);
    if (v->leaves == NULL || fseeko(v->leaves, 0, SEEK_SET) != 0) return false;
    v->next_leaf = v->n_leaves = 0;
    while (tree.size < v->next.size && verify_next_leaf(v, &leaf))
        merkle_tree_add(&tree, leaf);
    struct merkle_hash root = merkle_tree_root(&tree);
    return tree.size == v->next.size && memcmp(&root, &v->next.root, sizeof(root)) == 0;
}

/* ---- records against checkpoints ---- */

static void compare_root(struct verify *v)
{
    struct merkle_hash root = merkle_tree_root(&v->tree);
    if (memcmp(&root, &v->next.root, sizeof(root)) == 0) {
        v->report->checkpoints++;
        v->report->sealed_records = v->next.size;
        v->report->sealed_unix_ns = v->next.time_unix_ns;
        v->first_other_leaf = 0;
        v->sealed_cut_last = v->cut_last;
        unsealed_init(&v->rest, v->next.time_unix_ns);
        return;
    }
    if (v->first_other_leaf != 0 && leaves_are_sealed(v))
        verify_found_bad(v, v->first_other_leaf,
                         "record %" PRIu64 " is not the one that was sealed: its hash is another",
                         v->first_other_leaf);
    else
        verify_found_bad(v, v->next.size,
                         "the root over %" PRIu64
                         " records is not the signed one; the change lies behind record %" PRIu64
                         " (the leaves do not say where)",
                         v->next.size, v->report->sealed_records);
}

void verify_checkpoints(struct verify *v)
{
    while (v->has_next && v->next.size == v->tree.size && !verify_is_bad(v)) {
        compare_root(v);
        verify_next_checkpoint(v);
    }
}

/* ---- checkpoints kept elsewhere ---- */

enum status verify_load_kept(struct verify *v)
{
    if (v->cfg->checkpoints_file == NULL) return STATUS_OK;
    enum status s = notes_read_kept(v->key, v->cfg->checkpoints_file, &v->kept, &v->n_kept, v->err);
    if (s != STATUS_UNAUTHENTICATED) return s;
    verify_found_bad(v, 1, "%s", v->err->message);
    return STATUS_OK;
}

/* Whoever has our key can sign another past, but not take back what was carried away before. */
void verify_kept(struct verify *v)
{
    struct merkle_hash root = merkle_tree_root(&v->tree);
    for (; v->next_kept < v->n_kept && v->kept[v->next_kept].size == v->tree.size; v->next_kept++)
        if (memcmp(&root, &v->kept[v->next_kept].root, sizeof(root)) != 0)
            verify_found_bad(v, v->tree.size,
                             "the checkpoint of size %" PRIu64
                             " in '%s' has another root: this is not the past that was sealed then",
                             v->tree.size, v->cfg->checkpoints_file);
}

void verify_kept_tail(struct verify *v)
{
    if (v->next_kept == v->n_kept) return;
    verify_found_bad(v, v->tree.size + 1,
                     "records %" PRIu64 " to %" PRIu64 " were sealed by a checkpoint in '%s' and are missing",
                     v->tree.size + 1, v->kept[v->n_kept - 1].size, v->cfg->checkpoints_file);
}

void verify_tail(struct verify *v)
{
    if (verify_is_bad(v) || !v->has_next) return;
    uint64_t records = v->tree.size, changed = v->first_other_leaf;
    while (v->has_next) { /* the newest says how much is missing */
        struct checkpoint last = v->next;
        verify_next_checkpoint(v);
        if (v->has_next) continue;
        v->next = last;
        break;
    }
    if (verify_is_bad(v)) return;
    if (changed != 0 && leaves_are_sealed(v))
        verify_found_bad(v, changed,
                         "record %" PRIu64 " is not the one that was sealed, and records %" PRIu64
                         " to %" PRIu64 " are missing",
                         changed, records + 1, v->next.size);
    else
        verify_found_bad(v, records + 1,
                         "records %" PRIu64 " to %" PRIu64
                         " were sealed and are missing: the end was cut off",
                         records + 1, v->next.size);
}
