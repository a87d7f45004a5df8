#include "fiber/fiber.h"

#include <assert.h>
#include <stdlib.h>

/* Invariant after each call: can_send is set iff there is room or the channel is closed,
 * can_receive iff there is an item or the channel is closed. */
static void channel_update(struct channel *c)
{
    if (c->len < c->capacity || c->is_closed)
        fiber_event_set(&c->can_send);
    else
        fiber_event_reset(&c->can_send);
    if (c->len > 0 || c->is_closed)
        fiber_event_set(&c->can_receive);
    else
        fiber_event_reset(&c->can_receive);
}

void channel_init(struct channel *c, unsigned capacity)
{
    assert(capacity > 0);
    *c = (struct channel){.capacity = capacity};
    c->items = calloc(capacity, sizeof(*c->items));
    if (c->items == NULL) {
        (void)fprintf(stderr, "fiber: out of memory for a channel of %u\n", capacity);
        abort();
    }
    fiber_event_init(&c->can_send);
    fiber_event_init(&c->can_receive);
    channel_update(c);
}

void channel_release(struct channel *c)
{
    if (c == NULL) return;
    free(c->items);
    *c = (struct channel){0};
}

enum status channel_try_send(struct channel *c, void *item)
{
    if (c->is_closed) return STATUS_FAILED_PRECONDITION;
    if (c->len == c->capacity) return STATUS_RESOURCE_EXHAUSTED;
    c->items[(c->head + c->len++) % c->capacity] = item;
    channel_update(c);
    return STATUS_OK;
}

enum status channel_send(struct channel *c, void *item, int64_t deadline_ns)
{
    for (;;) { /* several may be woken for one place */
        enum status s = channel_try_send(c, item);
        if (s != STATUS_RESOURCE_EXHAUSTED) return s;
        s = fiber_event_wait(&c->can_send, deadline_ns);
        if (s != STATUS_OK) return s;
    }
}

enum status channel_receive(struct channel *c, int64_t deadline_ns, void **ret_item)
{
    while (c->len == 0) {
        if (c->is_closed) return STATUS_NOT_FOUND;
        enum status s = fiber_event_wait(&c->can_receive, deadline_ns);
        if (s != STATUS_OK) return s;
    }
    *ret_item = c->items[c->head];
    c->head = (c->head + 1) % c->capacity;
    c->len--;
    channel_update(c);
    return STATUS_OK;
}

void channel_close(struct channel *c)
{
    c->is_closed = true;
    channel_update(c);
}
