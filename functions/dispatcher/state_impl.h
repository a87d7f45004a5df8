/* Shared by state*.c alone. */
#ifndef BALM_DISPATCHER_STATE_IMPL_H
#define BALM_DISPATCHER_STATE_IMPL_H

#include "functions/dispatcher/state.h"

/* state.c */
void state_add_runbook(struct state *s, uint64_t seq, struct strview hash, struct strview content);
/* Which way a gate opens again decides what the incident waits for. *ret_gate: the gate's name, static. */
enum incident_phase state_phase_after(struct strview gate, const char **ret_gate);

/* state_timer.c */
struct timer *state_timer_add(struct state *s, uint64_t seq, const struct record *r);
struct timer *state_timer_find(const struct state *s, uint64_t seq);
void state_timer_remove(struct state *s, struct timer *t); /* frees */
void state_timers_turn(struct state *s, const struct clock_turn *turn);

/* state_tick.c */
void state_apply_tick(struct state *s, uint64_t seq, const struct record *r);
/* After an activation: `before` is the set that was in force. */
void state_schedules_changed(struct state *s, const struct active_runbook *before, size_t n_before);

/* state_incident.c */
struct incident *state_incident_new(const struct record *r, struct strview target, struct strview missing);
struct target *state_target_get(struct state *s, struct strview name);
struct runbook_slot *state_slot_get(struct state *s, struct strview name); /* made if it is not there */
void state_open_incident(struct state *s, uint64_t seq, const struct record *r, const struct runbook *rb);
void state_close_incident(struct state *s, struct incident *inc, const struct record *r);
void state_free_incident(struct state *s, struct incident *inc);
void state_set_phase(struct state *s, struct incident *inc, enum incident_phase phase);
/* An escalation's message: its reason is noted; it is kept while acting is stopped, or a person has it told
 * once more, and settled once it is sent. */
void state_note_escalation(struct incident *inc, struct strview reason);
void state_keep_untold(struct incident *inc);
void state_settle_untold(struct incident *inc);
/* Did a person close this incident in the episode that goes on? */
bool state_is_dismissed(const struct state *s, struct strview incident);
void state_dismiss(struct state *s, struct strview incident);
void state_forget_dismissed(struct state *s, struct strview incident);
void state_drop_timer(struct state *s, struct incident *inc);
void state_act_begin(struct state *s, struct incident *inc, int64_t began_ns);
void state_act_end(struct state *s, struct incident *inc);
void state_free_target(struct target *t);

#endif
