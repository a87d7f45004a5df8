#include "audit/hasher.h"

#include <pthread.h>
#include <unistd.h>

#include "base/memory.h"

struct hasher {
    pthread_mutex_t lock;
    pthread_cond_t filled, done;
    bool is_stopping;
    uint64_t put, taken, got; /* batches so far: put, begun to hash, given back; [i % HASHER_BATCHES] */
    unsigned n_threads;
    pthread_t threads[HASHER_THREADS_MAX];
    struct hasher_batch batches[HASHER_BATCHES];
};

/* With the lock held: hash the oldest batch that nobody has begun. */
static void hash_one(struct hasher *h)
{
    struct hasher_batch *b = &h->batches[h->taken++ % HASHER_BATCHES];
    b->state = HASHER_AT_WORK;
    (void)pthread_mutex_unlock(&h->lock);
    for (size_t i = 0; i < b->n; i++)
        b->leaves[i] = merkle_leaf(b->entries[i].bytes);
    (void)pthread_mutex_lock(&h->lock);
    b->state = HASHER_DONE;
    (void)pthread_cond_signal(&h->done);
}

static void *help(void *arg)
{
    struct hasher *h = arg;
    (void)pthread_mutex_lock(&h->lock);
    while (!h->is_stopping) {
        if (h->taken < h->put)
            hash_one(h);
        else
            (void)pthread_cond_wait(&h->filled, &h->lock);
    }
    (void)pthread_mutex_unlock(&h->lock);
    return NULL;
}

struct hasher *hasher_new(unsigned threads)
{
    struct hasher *h = mem_zalloc(1, sizeof(*h));
    long cores = sysconf(_SC_NPROCESSORS_ONLN);
    if (threads == 0) threads = cores > 1 ? (unsigned)(cores - 1) : 0;
    if (threads > HASHER_THREADS_MAX) threads = HASHER_THREADS_MAX;
    (void)pthread_mutex_init(&h->lock, NULL);
    (void)pthread_cond_init(&h->filled, NULL);
    (void)pthread_cond_init(&h->done, NULL);
    while (h->n_threads < threads && pthread_create(&h->threads[h->n_threads], NULL, help, h) == 0)
        h->n_threads++;
    return h;
}

void hasher_free(struct hasher *h)
{
    if (h == NULL) return;
    (void)pthread_mutex_lock(&h->lock);
    h->is_stopping = true;
    (void)pthread_cond_broadcast(&h->filled);
    (void)pthread_mutex_unlock(&h->lock);
    for (unsigned i = 0; i < h->n_threads; i++)
        (void)pthread_join(h->threads[i], NULL);
    for (size_t i = 0; i < HASHER_BATCHES; i++)
        arena_release(&h->batches[i].arena);
    (void)pthread_cond_destroy(&h->filled);
    (void)pthread_cond_destroy(&h->done);
    (void)pthread_mutex_destroy(&h->lock);
    free(h);
}

struct hasher_batch *hasher_next(struct hasher *h)
{
    if (h->put - h->got == HASHER_BATCHES) return NULL;
    struct hasher_batch *b = &h->batches[h->put % HASHER_BATCHES];
    arena_reset(&b->arena);
    b->n = 0;
    return b;
}

void hasher_put(struct hasher *h, struct hasher_batch *b)
{
    (void)pthread_mutex_lock(&h->lock);
    b->state = HASHER_FILLED;
    h->put++;
    (void)pthread_cond_signal(&h->filled);
    (void)pthread_mutex_unlock(&h->lock);
}

struct hasher_batch *hasher_get(struct hasher *h)
{
    if (h->got == h->put) return NULL;
    struct hasher_batch *b = &h->batches[h->got % HASHER_BATCHES];
    (void)pthread_mutex_lock(&h->lock);
    while (b->state != HASHER_DONE) {
        if (h->taken < h->put)
            hash_one(h);
        else
            (void)pthread_cond_wait(&h->done, &h->lock);
    }
    (void)pthread_mutex_unlock(&h->lock);
    return b;
}

void hasher_done(struct hasher *h, struct hasher_batch *b)
{
    b->state = HASHER_EMPTY;
    h->got++;
}
