// One run: a process with everything that it starts, and with its output.

import { messageChain } from "../errors.ts";
import type { Cgroup } from "../host/cgroup.ts";
import type { Spawned } from "../host.ts";
import { MARK_VARIABLE } from "../host/processes.ts";
import type { Exit } from "../model.ts";
import type { SupervisorOptions } from "./options.ts";
import type { EndedRun } from "./sweep.ts";
import { Tree } from "./tree.ts";

export interface Run extends EndedRun {
  /** On the host's clock. */
  readonly startedMs: number;
  hasExited: boolean;
  releaseOutput(): void;
}

/** Whom a run tells of its end; never before it has been returned. */
export interface RunEvents {
  exited(run: Run, exit: Exit): void;
  /** The process has ended and so has its output, with this line on standard error. */
  closed(run: Run, lastWords: string | undefined): void;
}

/** Starts the program of an instance as it stands now. @throws `cannot_run` */
export function startRun(options: SupervisorOptions, events: RunEvents): Run {
  const { host } = options;
  const settings = options.settings();
  const { path, env } = options.program();
  const mark = options.newMark();
  const output = options.output.open();
  let stillOpen = 2; // the process, and its output
  const closed = (): void => {
    if (--stillOpen === 0) events.closed(run, output.lastWords());
  };
  const cgroup = makeCgroup(options, mark);
  let child: Spawned;
  try {
    child = host.spawn({
      path,
      cgroup: cgroup?.path,
      args: settings.args,
      env: { ...env, [MARK_VARIABLE]: mark },
      cwd: settings.cwd ?? undefined,
      onExit: (exit) => {
        events.exited(run, exit);
        closed();
      },
      onOutput: output.append,
      onOutputEnd: () => {
        output.end();
        closed();
      },
    });
  } catch (error) {
    output.end();
    cgroup?.remove();
    throw error;
  }
  const identity = {
    pid: child.pid,
    get startTicks() {
      return child.startTicks;
    },
    mark,
    cgroup,
  };
  const run: Run = Object.assign(identity, {
    tree: new Tree(host, identity),
    startedMs: host.now(),
    hasExited: false,
    isGone: false,
    releaseOutput: child.releaseOutput,
  });
  return run;
}

/** What the system refuses is done without: a process is found by other means too. */
function makeCgroup({ id, log, newCgroup }: SupervisorOptions, mark: string): Cgroup | undefined {
  try {
    return newCgroup(mark);
  } catch (error) {
    log.warn("run:start", "cannot make a control group, the child runs without one", {
      id,
      error: messageChain(error).join(": "),
    });
    return undefined;
  }
}
