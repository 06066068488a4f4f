// What a killed daemon left behind is ended before its successor starts anything.
//
// Its guard has done so already, as a rule; this is for what the guard could not do, because it was
// killed as well. Nobody is signalled whose pid, start time and boot are not the ones recorded, unless
// the mark of the former daemon is in its environment.

import type { ProcessEntry } from "../host/processes.ts";
import { endAll, indexOf, Members, type TreeHost } from "./tree.ts";

/** A run that a former daemon has written down. */
export interface FormerRun {
  readonly pid: number;
  readonly startTicks: number | undefined;
  /** Of the boot in which it was started. */
  readonly bootId: string | undefined;
  readonly mark: string;
}

/** Ends what is left of a former daemon's runs. @returns what is left even so */
export function recover(
  host: TreeHost,
  former: {
    /** The part of the marks before the first dot. */
    readonly runId: string | undefined;
    readonly runs: readonly FormerRun[];
    /** Of the present boot. */
    readonly bootId: string | undefined;
  },
  withinMs: number,
): Promise<ProcessEntry[]> {
  const { runId, runs, bootId } = former;
  const known = runs.filter((run) => bootId !== undefined && run.bootId === bootId);
  const marks = new Set(runs.map(({ mark }) => mark));
  const isMarked = ({ mark }: ProcessEntry): boolean =>
    mark !== undefined &&
    (marks.has(mark) || (runId !== undefined && mark.startsWith(`${runId}.`)));
  const members = new Members();
  const struck = new Set<number>();
  return endAll(host, withinMs, {
    find: async () => {
      const snapshot = await host.snapshot();
      const index = indexOf(snapshot);
      const seeds = snapshot.filter(isMarked);
      for (const { pid, startTicks } of known) {
        const session = index.bySession.get(pid) ?? [];
        const leader = index.byPid.get(pid);
        // Without its leader, a session is the recorded one only if somebody in it proves it.
        const isOurs =
          leader === undefined ? session.some(isMarked) : leader.startTicks === startTicks;
        if (isOurs) seeds.push(...session);
      }
      return members.find(index, seeds);
    },
    strike: (signal) => {
      struck.clear();
      for (const { pid, startTicks } of known) {
        try {
          if (startTicks === undefined || host.readProcess(pid)?.startTicks !== startTicks)
            continue;
          if (host.signalGroup(pid, signal)) struck.add(pid);
        } catch {
          // What is not ours to signal is in the list of what is left.
        }
      }
    },
    isStruck: ({ group }) => struck.has(group),
  });
}
