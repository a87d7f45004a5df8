#include "functions/scaler/watches.h"

#include <stdlib.h>

#include "base/hash.h"
#include "base/memory.h"

struct watch {
    struct list node;     /* in its bucket, or `everything` */
    struct list due_node; /* in watches->due */
    struct watches *watches;
    struct grpc_call *call;
    bool is_told;
    int64_t told_ns;
    struct strview function; /* into name */
    char name[];
};

void watches_init(struct watches *w, watches_backlog_fn *backlog, void *arg)
{
    *w = (struct watches){.backlog = backlog, .arg = arg};
    for (size_t i = 0; i < WATCHES_BUCKETS; i++)
        list_init(&w->buckets[i]);
    list_init(&w->everything);
    list_init(&w->due);
    fiber_event_init(&w->risen);
}

static void on_gone(void *arg)
{
    struct watch *watch = arg;
    list_remove(&watch->node);
    list_remove(&watch->due_node);
    watch->watches->n--;
    free(watch);
}

void watches_release(struct watches *w)
{
    for (struct list *node; (node = list_pop_front(&w->everything)) != NULL;)
        free(container_of(node, struct watch, node));
    for (size_t i = 0; i < WATCHES_BUCKETS; i++)
        for (struct list *node; (node = list_pop_front(&w->buckets[i])) != NULL;)
            free(container_of(node, struct watch, node));
}

static struct list *bucket_of(struct watches *w, struct strview function)
{
    return &w->buckets[fnv1a_add(FNV1A_START, function) % WATCHES_BUCKETS];
}

static void set_due(struct watches *w, struct watch *watch)
{
    if (watch->is_told || list_is_linked(&watch->due_node)) return;
    list_push_back(&w->due, &watch->due_node);
    fiber_event_set(&w->risen);
}

enum status watches_add(struct watches *w, struct strview function, struct grpc_call *call, struct error *err)
{
    if (w->n == WATCHES_MAX)
        return error_set(err, STATUS_RESOURCE_EXHAUSTED, "%d streams are open already", WATCHES_MAX);
    struct watch *watch = mem_zalloc(1, sizeof(*watch) + function.len);
    if (function.len > 0) memcpy(watch->name, function.ptr, function.len);
    watch->function = sv_n(watch->name, function.len);
    watch->watches = w;
    watch->call = call;
    list_push_back(function.len > 0 ? bucket_of(w, function) : &w->everything, &watch->node);
    w->n++;
    grpc_call_detach(call, on_gone, watch);
    set_due(w, watch);
    return STATUS_OK;
}

/* Where the new work is all there is, what was told of before is over: that was between two looks. */
static void notice_in(struct watches *w, struct list *list, struct strview function)
{
    bool is_asked = false, is_first = false;
    for (struct list *node = list->next; node != list; node = node->next) {
        struct watch *watch = container_of(node, struct watch, node);
        if (!sv_eq(watch->function, function)) continue;
        if (watch->is_told && !is_asked) {
            is_first = w->backlog(w->arg, function) <= 1;
            is_asked = true;
        }
        if (is_first) watch->is_told = false;
        set_due(w, watch);
    }
}

void watches_notice(struct watches *w, struct strview function)
{
    notice_in(w, bucket_of(w, function), function);
    notice_in(w, &w->everything, (struct strview){0});
}

static void look_at(struct watches *w, struct watch *watch, int64_t now_ns)
{
    static const char is_active[] = {0x08, 0x01}; /* IsActiveResponse{result: true} */
    if (w->backlog(w->arg, watch->function) == 0) {
        watch->is_told = false;
        return;
    }
    if (watch->is_told && now_ns - watch->told_ns < WATCH_REPEAT_NS) return;
    if (grpc_try_send(watch->call, sv_n(is_active, sizeof(is_active))) != STATUS_OK) return;
    watch->is_told = true;
    watch->told_ns = now_ns;
}

void watches_tell_due(struct watches *w, int64_t now_ns)
{
    for (struct list *node; (node = list_pop_front(&w->due)) != NULL;)
        look_at(w, container_of(node, struct watch, due_node), now_ns);
}

static void look_at_list(struct watches *w, struct list *list, int64_t now_ns)
{
    for (struct list *node = list->next; node != list; node = node->next)
        look_at(w, container_of(node, struct watch, node), now_ns);
}

void watches_look(struct watches *w, int64_t now_ns)
{
    look_at_list(w, &w->everything, now_ns);
    for (size_t i = 0; i < WATCHES_BUCKETS; i++)
        look_at_list(w, &w->buckets[i], now_ns);
}
