// State × event → next state and action, for the process of one instance. Pure.
//
//   stopped ──start──► running ──stop──► stopping ──emptied──► stopped
//      ▲                  │                  │
//      └──────exit────────┘                  └──stuck──► running   (the stop failed; try again)
//
// Carried out by `supervisor.ts`. The table has no empty cell: the compiler sees to it.

/** Where the process of an instance stands. `stopping` lasts until its process group is empty. */
export type State = "stopped" | "running" | "stopping";

/** What happens to it. */
export type Event =
  | "start" // asked to start
  | "stop" // asked to stop
  | "exit" // the process that we started has ended
  | "emptied" // no process of its group is left
  | "expired" // the grace is over
  | "stuck"; // processes are left long after SIGKILL

/** What the supervisor does about it. */
export type Action =
  | "spawn" // start the program
  | "interrupt" // send the stop signal to the group, start the grace
  | "kill" // send SIGKILL to the group
  | "sweep" // send SIGKILL to what the process left behind in its group
  | "wait" // wait for the stop that is under way
  | "answer" // the stop is done
  | "report" // the stop has failed
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
    exit: { state: "stopped", action: "none" },
    emptied: { state: "stopped", action: "none" },
    expired: { state: "stopped", action: "none" },
    stuck: { state: "stopped", action: "none" },
  },
  running: {
    start: { state: "running", action: "refuseRunning" },
    stop: { state: "stopping", action: "interrupt" },
    exit: { state: "stopped", action: "sweep" },
    emptied: { state: "running", action: "none" },
    expired: { state: "running", action: "none" },
    stuck: { state: "running", action: "none" },
  },
  stopping: {
    start: { state: "stopping", action: "refuseStopping" },
    stop: { state: "stopping", action: "wait" },
    exit: { state: "stopping", action: "none" },
    emptied: { state: "stopped", action: "answer" },
    expired: { state: "stopping", action: "kill" },
    stuck: { state: "running", action: "report" },
  },
};

/** The next state, and what is to be done. */
export function step(state: State, event: Event): Step {
  return TRANSITIONS[state][event];
}
