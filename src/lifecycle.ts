// State × event → next state and action, for the process of one instance. Pure.
//
//   stopped ──start──► running ──stop──► stopping ──emptied──► stopped
//      ▲                │ │ ▲                │
//      └────ended───────┘ │ └──due/start──┐  └──stuck──► running   (the stop failed; try again)
//                         ├──crashed──► waiting ──stop──► stopping
//                         └──exhausted─► failed ──start──► running
//
// Carried out by `supervisor.ts`. The table has no empty cell: the compiler sees to it.

/** Where the process of an instance stands. `stopping` lasts until nothing of it is left. */
export type State = "stopped" | "running" | "stopping" | "waiting" | "failed";

/** What happens to it. */
export type Event =
  | "start" // asked to start
  | "stop" // asked to stop
  | "remove" // asked to be removed
  | "ended" // the process that we started has ended, and its policy leaves it at that
  | "crashed" // it has ended, and is to be started again after a pause
  | "exhausted" // it has ended too often to be started again
  | "due" // the pause is over
  | "emptied" // nothing of it is left
  | "expired" // the grace is over
  | "stuck" // its own process is there long after SIGKILL
  | "strays"; // only others that it started are there long after SIGKILL

/** What the supervisor does about it. */
export type Action =
  | "spawn" // start the program
  | "interrupt" // send the stop signal, start the grace
  | "kill" // send SIGKILL to everything
  | "sweep" // send SIGKILL to what the process left behind
  | "sweepAndWait" // the same, and start the pause before the next start
  | "look" // see whether anything is left
  | "wait" // wait for the stop that is under way
  | "answer" // the stop is done
  | "report" // the stop has failed
  | "discard" // remove it
  | "refuseRunning"
  | "refuseStopped"
  | "refuseStopping"
  | "none";

export interface Step {
  readonly state: State;
  readonly action: Action;
}

export const TRANSITIONS: Readonly<Record<State, Readonly<Record<Event, Step>>>> = {
  stopped: {
    start: { state: "running", action: "spawn" },
    stop: { state: "stopped", action: "refuseStopped" },
    remove: { state: "stopped", action: "discard" },
    ended: { state: "stopped", action: "none" },
    crashed: { state: "stopped", action: "none" },
    exhausted: { state: "stopped", action: "none" },
    due: { state: "stopped", action: "none" },
    emptied: { state: "stopped", action: "none" },
    expired: { state: "stopped", action: "none" },
    stuck: { state: "stopped", action: "none" },
    strays: { state: "stopped", action: "none" },
  },
  running: {
    start: { state: "running", action: "refuseRunning" },
    stop: { state: "stopping", action: "interrupt" },
    remove: { state: "running", action: "refuseRunning" },
    ended: { state: "stopped", action: "sweep" },
    crashed: { state: "waiting", action: "sweepAndWait" },
    exhausted: { state: "failed", action: "sweep" },
    due: { state: "running", action: "none" },
    emptied: { state: "running", action: "none" },
    expired: { state: "running", action: "none" },
    stuck: { state: "running", action: "none" },
    strays: { state: "running", action: "none" },
  },
  stopping: {
    start: { state: "stopping", action: "refuseStopping" },
    stop: { state: "stopping", action: "wait" },
    remove: { state: "stopping", action: "refuseStopping" },
    ended: { state: "stopping", action: "look" },
    crashed: { state: "stopping", action: "look" },
    exhausted: { state: "stopping", action: "look" },
    due: { state: "stopping", action: "none" },
    emptied: { state: "stopped", action: "answer" },
    expired: { state: "stopping", action: "kill" },
    stuck: { state: "running", action: "report" },
    strays: { state: "stopped", action: "report" },
  },
  waiting: {
    start: { state: "running", action: "spawn" },
    stop: { state: "stopping", action: "kill" },
    remove: { state: "waiting", action: "discard" },
    ended: { state: "waiting", action: "none" },
    crashed: { state: "waiting", action: "none" },
    exhausted: { state: "waiting", action: "none" },
    due: { state: "running", action: "spawn" },
    emptied: { state: "waiting", action: "none" },
    expired: { state: "waiting", action: "none" },
    stuck: { state: "waiting", action: "none" },
    strays: { state: "waiting", action: "none" },
  },
  failed: {
    start: { state: "running", action: "spawn" },
    stop: { state: "failed", action: "refuseStopped" },
    remove: { state: "failed", action: "discard" },
    ended: { state: "failed", action: "none" },
    crashed: { state: "failed", action: "none" },
    exhausted: { state: "failed", action: "none" },
    due: { state: "failed", action: "none" },
    emptied: { state: "failed", action: "none" },
    expired: { state: "failed", action: "none" },
    stuck: { state: "failed", action: "none" },
    strays: { state: "failed", action: "none" },
  },
};

/** The next state, and what is to be done. */
export function step(state: State, event: Event): Step {
  return TRANSITIONS[state][event];
}
