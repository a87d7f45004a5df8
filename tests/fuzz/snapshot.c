/* The parts of a snapshot on any bytes: refused, or loaded into something that can be saved, loaded and
 * freed. A CRC stands before them, so only a file that was made on purpose gets here.
 *
 * Input: one byte that chooses the part, then the part.
 *
 * Reads: functions/dispatcher/state_save.c store/queue_save.c base/pack.c functions/audit/index.c */
#include <assert.h>

#include "functions/audit/index.h"
#include "functions/dispatcher/state.h"
#include "replay.h"
#include "store/episode.h"
#include "store/queue_impl.h"

static void load_state(struct unpack *u)
{
    struct state *s = NULL;
    if (state_load(u, &s, NULL) != STATUS_OK) return;
    struct pack saved;
    pack_init(&saved, NULL, NULL);
    state_save(s, &saved);
    state_apply(s, s->last_seq + 1, &(struct record){.kind = RECORD_FREEZE, .time_ns = 1, .on = true});
    state_free(s);
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
    struct pack saved;
    work_index_init(&x);
    pack_init(&saved, NULL, NULL);
    if (work_index_load(&x, u)) {
        work_settle_past(&x);
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

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t n)
{
    static void (*const loaders[])(struct unpack * u) = {load_state, load_episodes, load_queue, load_index};
    struct unpack u;
    if (n == 0) return 0;
    unpack_init(&u, sv_n((const char *)bytes + 1, n - 1));
    loaders[bytes[0] % ARRAY_LEN(loaders)](&u);
    return 0;
}
