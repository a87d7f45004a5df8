/* Threads posting to a loop, work on worker threads and fibers between them, for the thread sanitizer, which
 * Criterion does not run under. Exits 0 when all posts came in order; the sanitizer makes it 66 on a race. */
#include <pthread.h>
#include <stdint.h>
#include <stdio.h>

#include "base/clock.h"
#include "loop/loop.h"

enum { N_THREADS = 4, N_POSTS = 10000, N_JOBS = 64 };

struct numbered {
    struct loop_post post;
    struct poster *from;
    int number;
};

struct poster {
    struct loop *loop;
    struct numbered *posts;
    int next;
    bool is_out_of_order;
};

struct run {
    struct poster posters[N_THREADS];
    struct fiber_event all;
    int left, jobs_done;
    uint64_t sum; /* touched by fibers between waits, never locked */
};

static struct run run;

static void on_numbered(struct loop_post *post)
{
    struct numbered *n = container_of(post, struct numbered, post);
    if (n->number != n->from->next++) n->from->is_out_of_order = true;
    if (--run.left == 0) fiber_event_set(&run.all);
}

static void *post_all(void *arg)
{
    struct poster *p = arg;
    for (int i = 0; i < N_POSTS; i++) {
        p->posts[i] = (struct numbered){.post.fn = on_numbered, .from = p, .number = i};
        loop_post(p->loop, &p->posts[i].post);
    }
    return NULL;
}

static void add_up(void *arg)
{
    uint64_t *sum = arg;
    for (uint64_t i = 0; i < 1000; i++)
        *sum += i;
}

static void do_jobs(void *arg)
{
    (void)arg;
    for (int i = 0; i < N_JOBS / 8; i++) {
        uint64_t sum = 0; /* on this fiber's stack, written by a worker */
        work_run(add_up, &sum);
        run.sum += sum;
        run.jobs_done++;
        if (sleep_ms(1) != STATUS_OK) return;
    }
}

static void run_all(void *arg)
{
    pthread_t threads[N_THREADS];
    struct fiber_scope s;
    (void)arg;
    fiber_event_init(&run.all);
    fiber_scope_init(&s);
    run.left = N_THREADS * N_POSTS;
    for (int i = 0; i < N_THREADS; i++) {
        run.posters[i] =
            (struct poster){.loop = loop_current(), .posts = calloc(N_POSTS, sizeof(struct numbered))};
        if (pthread_create(&threads[i], NULL, post_all, &run.posters[i]) != 0) abort();
    }
    for (int i = 0; i < 8; i++)
        if (fiber_scope_spawn(&s, do_jobs, NULL, NULL) != STATUS_OK) abort();
    if (fiber_event_wait(&run.all, clock_monotonic_ns() + 60 * NS_PER_S) != STATUS_OK)
        (void)fprintf(stderr, "%d posts were lost\n", run.left);
    fiber_scope_join(&s);
    for (int i = 0; i < N_THREADS; i++) {
        (void)pthread_join(threads[i], NULL);
        free(run.posters[i].posts);
    }
}

int main(void)
{
    struct loop *l = NULL;
    if (loop_new(&l, NULL) != STATUS_OK || loop_run_fiber(l, run_all, NULL, NULL) != STATUS_OK) return 1;
    loop_free(l);
    for (int i = 0; i < N_THREADS; i++)
        if (run.posters[i].is_out_of_order) run.left++;
    bool is_good = run.left == 0 && run.jobs_done == N_JOBS && run.sum == UINT64_C(499500) * N_JOBS;
    (void)printf("%s: %d posts, %d jobs\n", is_good ? "ok" : "FAILED", N_THREADS * N_POSTS - run.left,
                 run.jobs_done);
    return is_good ? 0 : 1;
}
