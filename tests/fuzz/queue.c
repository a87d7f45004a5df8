/* Records of any kind and content through the queue's fold, as a journal would show them: counts stay what
 * the items say, what was saved loads again as the same, and forgetting everything leaves nothing.
 *
 * Input: one record a line. Lines that are none are left out.
 *
 * Reads: store/queue.c store/queue_index.c store/queue_lease.c store/queue_save.c */
#include "store/queue.h"

#include "folder.h"
#include "in_loop.h"
#include "replay.h"
#include "store/journal_impl.h"

static struct queue *queue;
static struct journal_follower *follower; /* the queue's */

/* A journal of no records: what the queue folds comes from the input. */
static void prepare(void *arg)
{
    static char dir[FOLDER_PATH_MAX];
    struct journal *j = NULL;
    struct error err;
    (void)arg;
    (void)snprintf(dir, sizeof(dir), "%s", folder_path("journal"));
    const struct journal_cfg cfg = {.dir = dir};
    const struct queue_cfg queue_cfg = {.max_attempts = 3};
    enum status s = journal_open_sqlite(the_loop(), &cfg, &j, &err);
    if (s == STATUS_OK) s = queue_new(j, &queue_cfg, &queue, &err);
    assert(s == STATUS_OK);
    follower = container_of(j->followers.next, struct journal_follower, node);
}

struct sum {
    struct queue_depth depth;
    bool has_nameless; /* "" asks for all */
};

static void count_depth(void *arg, struct strview function)
{
    struct sum *sum = arg;
    struct queue_depth one = queue_depth(queue, function);
    sum->has_nameless |= function.len == 0;
    sum->depth.ready += one.ready;
    sum->depth.leased += one.leased;
    sum->depth.dead += one.dead;
    sum->depth.waiting += one.waiting;
}

static struct queue_depth check_counts(void)
{
    struct arena arena = {0};
    struct queue_depth all = queue_depth(queue, SV(""));
    struct sum sum = {.has_nameless = false};
    struct queue_dead *dead;
    size_t total = 0;
    queue_each_function(queue, count_depth, &sum);
    assert(sum.has_nameless || (sum.depth.ready == all.ready && sum.depth.leased == all.leased &&
                                sum.depth.dead == all.dead && sum.depth.waiting == all.waiting));
    size_t n = queue_list_dead(queue, SV(""), 100, &arena, &dead, &total);
    assert(total == all.dead && (n == total || n == 100));
    for (size_t i = 0; i < n; i++)
        assert(queue_is_dead(queue, dead[i].id));
    arena_release(&arena);
    return all;
}

/* Out of what was saved, into an empty one. */
static void go_round(void)
{
    struct pack saved, again;
    struct unpack u;
    pack_init(&saved, NULL, NULL);
    pack_init(&again, NULL, NULL);
    follower->on_save(follower, &saved);
    follower->on_reset(follower, 0);
    unpack_init(&u, pack_view(&saved));
    enum status s = follower->on_load(follower, 1, &u, NULL);
    assert(s == STATUS_OK);
    follower->on_save(follower, &again);
    assert(pack_view(&saved).len == pack_view(&again).len); /* functions come in another order */
    pack_release(&saved);
    pack_release(&again);
}

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t n)
{
    struct arena arena = {0};
    struct strview text = sv_n((const char *)bytes, n), line;
    struct record r;
    uint64_t seq = 0;
    if (queue == NULL) in_loop(prepare, NULL);
    while (sv_next(&text, '\n', &line)) {
        if (record_decode(line, &arena, &r, NULL) != STATUS_OK || r.time_ns == 0) continue;
        const struct journal_entry e = {.seq = ++seq, .bytes = line, .record = &r};
        follower->on_record(follower, &e);
    }
    struct queue_depth before = check_counts();
    go_round();
    struct queue_depth after = check_counts();
    assert(before.ready == after.ready && before.dead == after.dead && before.waiting == after.waiting);
    follower->on_reset(follower, 0);
    assert(queue_depth(queue, SV("")).ready == 0 && queue_depth(queue, SV("")).dead == 0);
    arena_release(&arena);
    return 0;
}
