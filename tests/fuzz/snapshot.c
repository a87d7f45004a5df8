/* The parts of a snapshot on any bytes: refused, or loaded into something that can be saved, loaded and
 * freed. A CRC stands before them, so only a file that was made on purpose gets here.
 *
 * Input: one byte that chooses the part, then the part.
 *
 * Reads: functions/dispatcher/state_save.c functions/dispatcher/state_load.c store/queue_save.c
 * store/snapshot_file.c base/pack.c functions/audit/index.c */
#include <assert.h>
#include <stdlib.h>
#include <string.h>
#include <zlib.h>

#include "folder.h"
#include "functions/audit/index.h"
#include "functions/dispatcher/decide.h"
#include "replay.h"
#include "store/episode.h"
#include "store/journal_impl.h"
#include "store/queue_impl.h"

enum { FILE_HEAD_BYTES = 16 + SHA256_BYTES, FILE_TAIL_BYTES = 16 }; /* snapshot_file.c */

/* Whoever loads takes a new epoch, which looks at every incident. */
static void load_state(struct unpack *u)
{
    struct decider *d = decider_new();
    struct pack saved;
    struct record *decided;
    size_t n;
    pack_init(&saved, NULL, NULL);
    if (decider_load(d, u, NULL) == STATUS_OK) {
        decider_save(d, &saved);
        decider_set_active(d, true);
        const struct state *s = decider_state(d);
        const struct record epoch = {.kind = RECORD_EPOCH, .time_ns = 1, .epoch = s->epoch + 1};
        decider_apply(d, s->last_seq + 1, &epoch);
        decider_next(d, &decided, &n);
    }
    decider_free(d);
    pack_release(&saved);
}

static void load_episodes(struct unpack *u)
{
    struct episodes *t = episodes_new_bounded(100, 100);
    struct pack saved;
    pack_init(&saved, NULL, NULL);
    if (episodes_load(t, u, NULL) == STATUS_OK) episodes_save(t, &saved);
    episodes_free(t);
    pack_release(&saved);
}

static void load_queue(struct unpack *u)
{
    struct work_index x;
    struct taken none;
    struct pack saved;
    taken_init(&none, NULL);
    work_index_init(&x);
    pack_init(&saved, NULL, NULL);
    if (work_index_load(&x, u)) {
        work_settle_past(&x, &none, UINT64_MAX);
        work_index_save(&x, &saved);
    }
    work_index_release(&x);
    pack_release(&saved);
}

static void load_index(struct unpack *u)
{
    struct audit_index x;
    struct error err;
    index_init(&x);
    (void)!x.follower.on_load(&x.follower, 1, u, &err);
    index_release(&x);
}

/* The file around the parts, with the CRC that it should have. */
static void load_file(struct unpack *u)
{
    size_t n = (size_t)(u->end - u->at);
    struct snapshot *snapshot = NULL;
    unsigned char *bytes = malloc(n + 1);
    assert(bytes != NULL);
    memcpy(bytes, u->at, n);
    if (n > FILE_HEAD_BYTES + FILE_TAIL_BYTES) {
        uint32_t crc = (uint32_t)crc32_z(0, bytes + FILE_HEAD_BYTES, n - FILE_HEAD_BYTES - FILE_TAIL_BYTES);
        for (size_t i = 0; i < 4; i++)
            bytes[n - 8 + i] = (unsigned char)(crc >> 8 * i);
    }
    (void)folder_put("00000000000000000007.snapshot", sv_n((const char *)bytes, n));
    if (snapshot_open(folder(), 7, &snapshot, NULL) == STATUS_OK) {
        assert(snapshot->seq == 7 && snapshot->n_parts <= SNAPSHOT_PARTS_MAX);
        for (size_t i = 0; i < snapshot->n_parts; i++)
            assert(snapshot_find(snapshot, snapshot->parts[i].name) != NULL &&
                   snapshot->parts[i].bytes.len <= n);
        snapshot_close(snapshot);
    }
    free(bytes);
}

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t n)
{
    static void (*const loaders[])(struct unpack * u) = {load_state, load_episodes, load_queue, load_index,
                                                         load_file};
    struct unpack u;
    if (n == 0) return 0;
    unpack_init(&u, sv_n((const char *)bytes + 1, n - 1));
    loaders[bytes[0] % ARRAY_LEN(loaders)](&u);
    return 0;
}
